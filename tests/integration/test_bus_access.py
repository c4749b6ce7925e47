# SPDX-License-Identifier: Apache-2.0
# Who may do what, on a bus of the system type with the shipped policy: root, a member of the
# group, anybody else, against every member there is.

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType
from dbus_next.message import Message

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import AccessDenied
from gpuwarden.bus.objects.publisher import GATEWAY_OBJECT, INTERFACES
from gpuwarden.bus.standard import INTROSPECTABLE, OBJECT_MANAGER, PEER
from gpuwarden.names import BUS_NAME, ROOT_OBJECT, gpu_object, worker_object
from gpuwarden.values import ThermalState, WorkerState
from tests.integration.bus_peers import guarded
from tests.integration.bus_states import card, state, worker
from tests.integration.private_bus import (
    MEMBER,
    OTHER,
    REPOSITORY,
    ROOT,
    PrivateBus,
    User,
    private_bus,
    shipped_policy,
)
from tests.integration.thermal_peer import thermal_peers
from tests.waiting import DEADLINE_SECONDS

OBJECTS = {
    f"{BUS_NAME}.Manager": ROOT_OBJECT,
    f"{BUS_NAME}.Gpu": gpu_object(0),
    f"{BUS_NAME}.Thermal": gpu_object(0),
    f"{BUS_NAME}.Worker": worker_object(0),
    f"{BUS_NAME}.Gateway": GATEWAY_OBJECT,
}
ARGUMENTS = {"GetHistory": ("u", "60")}
MAY = {ROOT: True, MEMBER: True, OTHER: False}
USERS = pytest.mark.parametrize("user", [ROOT, MEMBER, OTHER], ids=lambda user: user.label)


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with (
        private_bus() as running,
        guarded(running),
        thermal_peers(running.folder, 0),
    ):
        yield running


def calls() -> list[tuple[str, ...]]:
    """Every member that changes nothing, as busctl's arguments."""
    each: list[tuple[str, ...]] = []
    for interface in INTERFACES:
        path = OBJECTS[interface.name]
        names = [one.name for one in interface.properties]
        # One run of busctl asks for each in turn, and fails at the first that is refused.
        each.append(("get-property", BUS_NAME, path, interface.name, *names))
        each += [
            ("call", BUS_NAME, path, interface.name, one.name, *ARGUMENTS.get(one.name, ()))
            for one in interface.methods
            if one.action is None
        ]
    for interface in (PEER, INTROSPECTABLE, OBJECT_MANAGER):
        for method in interface.methods:
            each.append(("call", BUS_NAME, ROOT_OBJECT, interface.name, method.name))
    properties = ("call", BUS_NAME, ROOT_OBJECT, "org.freedesktop.DBus.Properties")
    each.append((*properties, "GetAll", "s", f"{BUS_NAME}.Manager"))
    return each


@USERS
async def test_every_member_answers_those_who_may_and_no_other(bus: PrivateBus, user: User) -> None:
    for call in calls():
        status, output = await bus.busctl(user, *call)
        assert (status == 0) == MAY[user], (call, output)
        assert MAY[user] or "Access denied" in output, (call, output)


async def test_each_property_is_refused_to_others_by_itself(bus: PrivateBus) -> None:
    for interface in INTERFACES:
        for one in interface.properties[:2]:
            status, output = await bus.busctl(
                OTHER, "get-property", BUS_NAME, OBJECTS[interface.name], interface.name, one.name
            )
            assert (status, "Access denied" in output) == (1, True)


async def test_others_can_not_even_send_what_we_do_not_have(bus: PrivateBus) -> None:
    for interface in ("no.such.Interface", "org.freedesktop.LogControl1"):
        _, output = await bus.busctl(OTHER, "call", BUS_NAME, ROOT_OBJECT, interface, "Go")
        assert "Access denied" in output


async def test_members_reach_only_the_interfaces_there_are(bus: PrivateBus) -> None:
    _, output = await bus.busctl(MEMBER, "call", BUS_NAME, ROOT_OBJECT, "no.such.Interface", "Go")
    assert "Access denied" in output


async def test_nobody_may_write_a_property(bus: PrivateBus) -> None:
    for user in (ROOT, MEMBER):
        _, output = await bus.busctl(
            user,
            "set-property",
            BUS_NAME,
            ROOT_OBJECT,
            f"{BUS_NAME}.Manager",
            "State",
            "s",
            "running",
        )
        assert "read-only" in output


@USERS
async def test_only_root_may_own_the_name(user: User) -> None:
    async with private_bus() as bus:
        daemon = "org.freedesktop.DBus"
        request = ("call", daemon, "/org/freedesktop/DBus", daemon, "RequestName", "su")
        status, output = await bus.busctl(user, *request, BUS_NAME, "4")
        assert (status == 0) == (user is ROOT), output


@asynccontextmanager
async def listening(bus: PrivateBus, user: User) -> AsyncIterator[tuple[asyncio.StreamReader, str]]:
    """A listener to the service running as ``user``: its output, and its name on the bus."""
    identity = map(str, (user.uid, user.gid, *user.groups))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.bus_listener",
        bus.address,
        BUS_NAME,
        *identity,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            ready, name = (await process.stdout.readline()).decode().split()
        assert ready == "ready"
        yield process.stdout, name
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def heard(user: User) -> str:
    """What ``user`` hears of a service that changes state and then goes."""
    async with private_bus() as bus, AsyncExitStack() as stack:
        async with guarded(bus) as service:
            output, _ = await stack.enter_async_context(listening(bus, user))
            ghost = worker(0, state=WorkerState.GHOST, reason="context lost")
            hot = card(0, state=ThermalState.ALERT)
            service.publish(state(workers=[ghost, worker(1)], gpus=[hot, card(1)]))
            service.publish(state(workers=[ghost, worker(2)], gpus=[hot, card(1)]))
            service.publisher.orphan_found(4242, 0, "ours-dead")
            service.publisher.orphan_reaped(4242, 2**33)
        # The bus tells everybody that the name is gone, after whatever its owner sent before.
        async with asyncio.timeout(DEADLINE_SECONDS):
            return (await output.readuntil(b"gone")).decode()


@USERS
async def test_signals_reach_those_who_may_read(user: User) -> None:
    text = await heard(user)
    ours = {signal.name for interface in INTERFACES for signal in interface.signals}
    standard = {"PropertiesChanged", "InterfacesAdded", "InterfacesRemoved"}
    heard_of = {line.split(" ")[0] for line in text.splitlines()} - {"gone"}
    assert ("eavesdrops" in heard_of) == (user is ROOT)
    heard_of -= {"eavesdrops"}
    assert heard_of == (ours | standard if MAY[user] else set()), text
    assert ("context lost" in text) == MAY[user], text


async def test_our_own_calls_reach_services_of_other_users() -> None:
    # As polkit's, which runs as its own user, neither root nor of the group, and whose own policy
    # lets it be called.
    called = (
        '<busconfig><policy context="default"><allow send_type="method_call" '
        f'send_interface="{PEER.name}"/></policy></busconfig>'
    )
    async with (
        private_bus([called, shipped_policy()]) as bus,
        guarded(bus) as service,
        listening(bus, OTHER) as (_, name),
    ):
        await service.bus.call(name, "/", PEER.name, "Ping", timeout_seconds=5)


async def test_no_descriptor_can_be_sent_to_us(bus: PrivateBus) -> None:
    sender = await MessageBus(bus.address, BusType.SYSTEM, negotiate_unix_fd=True).connect()
    answer = await sender.call(
        Message(
            destination=BUS_NAME,
            path=ROOT_OBJECT,
            interface=f"{BUS_NAME}.Manager",
            member="GetStatus",
            signature="h",
            body=[0],
            unix_fds=[1],
        )
    )
    sender.disconnect()
    assert answer is not None
    assert answer.error_name == AccessDenied.name


async def test_the_name_is_claimed_again_until_the_policy_is_loaded() -> None:
    async with private_bus([]) as bus:
        connection = Bus(bus.address)
        await connection.connect()
        try:
            with pytest.raises(AccessDenied, match=r"system\.d/org\.gpuwarden1\.conf"):
                await connection.own_name(BUS_NAME, timeout_seconds=0.3)
            assert "does not let us own" in connection.problem
            await bus.reload([shipped_policy()])
            await connection.own_name(BUS_NAME, timeout_seconds=8)
            assert connection.problem == ""
        finally:
            await connection.close()
