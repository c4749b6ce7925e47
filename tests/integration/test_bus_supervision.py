# SPDX-License-Identifier: Apache-2.0
# A bus daemon that dies and comes back, names that are lost, peers that fail.

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.connection import HardenedMessageBus
from gpuwarden.bus.errors import (
    CallTimeout,
    Disconnected,
    NameTaken,
    RemoteError,
    ServiceUnknown,
    UnknownMethod,
)
from gpuwarden.bus.interface import Argument, Signal
from gpuwarden.bus.library import Message
from gpuwarden.bus.serving import CallServer
from gpuwarden.bus.signals import DAEMON, DAEMON_PATH
from gpuwarden.bus.signals import Signal as Received
from gpuwarden.bus.tree import ObjectTree
from gpuwarden.names import BUS_NAME, ROOT_OBJECT
from gpuwarden.values import WorkerState
from tests.integration.bus_peers import STOCK, client, guarded, probe, service
from tests.integration.bus_states import state, worker
from tests.integration.private_bus import PrivateBus, private_bus
from tests.integration.probe import INTERFACE, NAME, ROOT
from tests.open_files import held_files

DEADLINE_SECONDS = 20.0  # for what isn't timed, on a busy machine too
BACK_SECONDS = 2.0  # the contract: names, objects and signals back within 2 s of the bus
MANAGER = f"{BUS_NAME}.Manager"
TICK = Signal("Tick", "", (Argument("number", "u"),))


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus() as running:
        yield running


class Ticks:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[int] = asyncio.Queue()

    def __call__(self, signal: Received) -> None:
        self.queue.put_nowait(signal.body[0])

    async def next(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.queue.get()


async def owner(connection: Bus, name: str) -> str:
    (unique,) = await connection.call(
        DAEMON, DAEMON_PATH, DAEMON, "GetNameOwner", "s", [name], timeout_seconds=DEADLINE_SECONDS
    )
    return str(unique)


async def name_is_back(bus: PrivateBus, seconds: float) -> bool:
    """Whether somebody owns the service's name within ``seconds``."""
    async with client(bus) as watcher:
        appeared = asyncio.Event()

        def changed(received: Received) -> None:
            if received.body[0] == BUS_NAME and received.body[2]:
                appeared.set()

        await watcher.subscribe(DAEMON, DAEMON_PATH, DAEMON, "NameOwnerChanged", changed)
        try:
            await owner(watcher, BUS_NAME)
        except ServiceUnknown:
            try:
                async with asyncio.timeout(seconds):
                    await appeared.wait()
            except TimeoutError:
                return False
        return True


async def test_everything_is_back_after_the_bus_was_killed(bus: PrivateBus) -> None:
    async with guarded(bus) as guard, client(bus) as other:
        ticks = Ticks()
        await other.subscribe(BUS_NAME, None, MANAGER, "WorkerStateChanged", ticks)
        told: list[str] = []
        took: list[float] = []

        async def hook() -> None:
            told.append(guard.bus.unique_name or "")

        guard.bus.on_connect(hook)
        for round_ in (1, 2, 3):
            await bus.stop()
            await bus.start()
            began = time.monotonic()
            assert await name_is_back(bus, DEADLINE_SECONDS)
            await other.connect(DEADLINE_SECONDS)
            await guard.bus.own_name(BUS_NAME, DEADLINE_SECONDS)
            took.append(time.monotonic() - began)
            (rows,) = await other.call(BUS_NAME, ROOT_OBJECT, MANAGER, "ListWorkers")
            assert len(rows) == 2
            states = [WorkerState.READY, WorkerState.BUSY]
            guard.publish(state(workers=[worker(0), worker(1, state=states[round_ % 2])]))
            assert await ticks.next() == 1
        assert len(told) == 3
        # What else runs on the machine can only make it later: the best counts.
        assert min(took) < BACK_SECONDS, took


async def test_stock_does_not_come_back(bus: PrivateBus) -> None:
    async with service(STOCK, bus):
        await bus.stop()
        await bus.start()
        assert not await name_is_back(bus, BACK_SECONDS)


async def test_reconnecting_leaves_no_descriptor(bus: PrivateBus) -> None:
    async with client(bus) as connection:
        counts = []
        for _ in range(4):
            await bus.stop()
            await bus.start()
            await connection.connect(DEADLINE_SECONDS)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await owner(connection, DAEMON)
            counts.append(held_files())
        assert counts[-1] <= counts[0]


async def test_calls_fail_at_once_while_there_is_no_bus(bus: PrivateBus) -> None:
    async with client(bus) as connection, service(STOCK, bus):
        waiting = asyncio.create_task(probe(connection, "Wait", timeout_seconds=20))
        await probe(connection, "Echo", "s", ["the call before is on its way"])
        await bus.stop()
        with pytest.raises(Disconnected):
            await waiting
        with pytest.raises(Disconnected):
            await probe(connection, "Echo", "s", ["x"])
        assert connection.problem != ""
        connection.emit(ROOT, INTERFACE, TICK, 1)  # dropped, no error


async def test_a_bus_that_comes_later_is_found(bus: PrivateBus) -> None:
    await bus.stop()
    connection = Bus(bus.address)
    try:
        with pytest.raises(Disconnected, match=r"No such file|refused"):
            await connection.connect(0.2)
        await bus.start()
        await connection.connect(DEADLINE_SECONDS)
    finally:
        await connection.close()


async def test_a_frozen_bus_does_not_block_us(bus: PrivateBus) -> None:
    async with client(bus) as connection:
        os.kill(bus.pid, signal.SIGSTOP)
        try:
            with pytest.raises(CallTimeout):
                await connection.call(DAEMON, DAEMON_PATH, DAEMON, "GetId", timeout_seconds=0.2)
        finally:
            os.kill(bus.pid, signal.SIGCONT)
        assert await connection.call(DAEMON, DAEMON_PATH, DAEMON, "GetId")


async def test_a_taken_name_is_an_error_and_taken_over_when_free(bus: PrivateBus) -> None:
    async with client(bus) as second:
        async with guarded(bus):
            with pytest.raises(NameTaken, match=BUS_NAME):
                await second.own_name(BUS_NAME, 0.3)
            assert not second.name_owned
        await second.own_name(BUS_NAME, 5)
        assert second.name_owned


async def test_a_name_that_is_lost_is_claimed_again(bus: PrivateBus) -> None:
    async with guarded(bus) as guard, client(bus) as other:
        lost, back = asyncio.Event(), asyncio.Event()

        def changed(received: Received) -> None:
            if received.body[0] == BUS_NAME:
                (back if received.body[2] else lost).set()

        await other.subscribe(DAEMON, DAEMON_PATH, DAEMON, "NameOwnerChanged", changed)
        await guard.bus.call(DAEMON, DAEMON_PATH, DAEMON, "ReleaseName", "s", [BUS_NAME])
        async with asyncio.timeout(DEADLINE_SECONDS):
            await lost.wait()
            await back.wait()
        await guard.bus.own_name(BUS_NAME, DEADLINE_SECONDS)


# Calls


async def test_errors_of_peers_are_typed(bus: PrivateBus) -> None:
    async with client(bus) as connection:
        with pytest.raises(ServiceUnknown):
            await connection.call("org.nobody.Here", "/", "a.b", "C")
        with pytest.raises(UnknownMethod):
            await connection.call(DAEMON, DAEMON_PATH, DAEMON, "NoSuchMethod")
        with pytest.raises(RemoteError) as caught:
            await connection.call(DAEMON, DAEMON_PATH, DAEMON, "RemoveMatch", "s", ["member='x'"])
        assert caught.value.name == "org.freedesktop.DBus.Error.MatchRuleNotFound"


async def test_a_peer_that_does_not_answer_is_a_timeout(bus: PrivateBus) -> None:
    async with service(STOCK, bus), client(bus) as connection:
        with pytest.raises(CallTimeout, match=r"0\.2 s"):
            await probe(connection, "Wait", timeout_seconds=0.2)


async def test_answers_come_without_variants(bus: PrivateBus) -> None:
    async with guarded(bus), client(bus) as connection:
        (values,) = await connection.call(
            BUS_NAME, ROOT_OBJECT, "org.freedesktop.DBus.Properties", "GetAll", "s", [MANAGER]
        )
        assert values["State"] == "running"


# Subscriptions


async def test_a_signal_of_a_stranger_is_not_taken_for_the_peers(bus: PrivateBus) -> None:
    async with guarded(bus) as guard, client(bus) as listener:
        stranger = HardenedMessageBus(bus.address, CallServer(ObjectTree(ROOT)), lambda _: None)
        await stranger.open()
        ticks = Ticks()
        await listener.subscribe(BUS_NAME, ROOT_OBJECT, MANAGER, "Tick", ticks)
        assert listener.unique_name is not None
        # A signal to one connection reaches it whatever it subscribed to.
        forged = Message.new_signal(ROOT_OBJECT, MANAGER, "Tick", "u", [666])
        forged.destination = listener.unique_name
        stranger.send(forged)
        await stranger.call_method(
            Message(destination=DAEMON, path=DAEMON_PATH, interface=DAEMON, member="GetId")
        )
        guard.bus.emit(ROOT_OBJECT, MANAGER, TICK, 1)
        assert await ticks.next() == 1
        await stranger.close()


async def test_a_peer_may_come_after_the_subscription_and_change(bus: PrivateBus) -> None:
    async with client(bus) as listener:
        ticks = Ticks()
        await listener.subscribe(BUS_NAME, None, MANAGER, "Tick", ticks)
        for number in (1, 2):
            async with guarded(bus) as guard:
                guard.bus.emit(ROOT_OBJECT, MANAGER, TICK, number)
                assert await ticks.next() == number


async def test_what_is_unsubscribed_is_not_heard(bus: PrivateBus) -> None:
    async with guarded(bus) as guard, client(bus) as listener:
        ticks, others = Ticks(), Ticks()
        first = await listener.subscribe(BUS_NAME, None, MANAGER, "Tick", ticks)
        await listener.subscribe(BUS_NAME, None, MANAGER, "Tick", others)
        await listener.unsubscribe(first)
        guard.bus.emit(ROOT_OBJECT, MANAGER, TICK, 1)
        assert await others.next() == 1
        assert ticks.queue.empty()


async def test_a_listener_that_fails_stops_no_other(bus: PrivateBus) -> None:
    async with guarded(bus) as guard, client(bus) as listener:

        def fail(_: Received) -> None:
            raise RuntimeError("a fault of the listener")

        ticks = Ticks()
        await listener.subscribe(BUS_NAME, None, MANAGER, "Tick", fail)
        await listener.subscribe(BUS_NAME, None, MANAGER, "Tick", ticks)
        guard.bus.emit(ROOT_OBJECT, MANAGER, TICK, 1)
        assert await ticks.next() == 1


async def test_a_quote_in_a_subscription_is_refused(bus: PrivateBus) -> None:
    async with client(bus) as listener:
        with pytest.raises(ValueError, match="can't hold a quote"):
            await listener.subscribe(NAME, "/a',member='b", None, None, print)
