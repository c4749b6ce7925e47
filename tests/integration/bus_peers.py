# SPDX-License-Identifier: Apache-2.0
"""Services and clients for bus tests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import Unavailable
from gpuwarden.bus.objects.log_control import exported_log_control
from gpuwarden.bus.objects.manager import ManagerCommands
from gpuwarden.bus.objects.publisher import Commands, Publisher
from gpuwarden.bus.polkit import Polkit
from gpuwarden.bus.wire import plain
from gpuwarden.control.requests import ReloadAnswer
from gpuwarden.control.states import GuardData
from gpuwarden.guard.commands import Commands as Orders
from gpuwarden.guard.denials import Denials
from gpuwarden.guard.gateway import GatewayControl
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.logs import GuardLog
from gpuwarden.guard.permission import Permission
from gpuwarden.guard.reaper import Reaper
from gpuwarden.guard.reload import Reloading, check_complete
from gpuwarden.guard.supervisor import Supervisor
from gpuwarden.guard.thermal import ThermalGuards
from gpuwarden.names import BUS_NAME, LOG_CONTROL_OBJECT
from gpuwarden.systemd.units import Systemd
from tests.integration.bus_states import FixedSource, state
from tests.integration.held_wire import HELD, HELD_FOR, HOLD
from tests.integration.private_bus import REPOSITORY, PrivateBus
from tests.integration.probe import INTERFACE, NAME, ROOT
from tests.integration.thermal_peer import NodeOfCards, socket_of

OURS = "tests.integration.bus_service"
STOCK = "tests.integration.bus_stock_service"
GUARD = "tests.integration.bus_guard_service"
START_SECONDS = 30.0


@asynccontextmanager
async def service(
    module: str,
    bus: PrivateBus,
    *arguments: str,
    stderr: IO[bytes] | None = None,
    held_for: Bus | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The probe service in its own process, owning its name.

    :param held_for: a client whose call ends what :func:`delay_seconds` holds back.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        bus.address,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        cwd=REPOSITORY,
        env=os.environ | ({HELD_FOR: str(held_for.unique_name)} if held_for else {}),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def client(bus: PrivateBus) -> AsyncIterator[Bus]:
    """A connected client."""
    connection = Bus(bus.address)
    await connection.connect()
    try:
        yield connection
    finally:
        await connection.close()


async def delay_seconds(
    process: asyncio.subprocess.Process,
    flood: Awaitable[None],
    call: Callable[[], Awaitable[object]],
) -> float:
    """What ``call`` waits where a flood stands before it, in CPU of the service.

    That is, what the service did before it came to it. It gets both as one (held_wire.py): neither
    the speed of the flooding client nor the bus's changes anything.
    """
    assert process.stdout is not None
    process.send_signal(HOLD)
    assert await process.stdout.readline() == HELD
    await flood
    await call()
    return float(await process.stdout.readline())


async def probe(
    connection: Bus,
    member: str,
    signature: str = "",
    body: list[object] | None = None,
    timeout_seconds: float = 10.0,
) -> object:
    """Call the probe service; its one output."""
    outputs = await connection.call(
        NAME, ROOT, INTERFACE, member, signature, body, timeout_seconds=timeout_seconds
    )
    return plain(outputs[0]) if outputs else None


async def lag_seconds(connection: Bus) -> float:
    """The longest that the service's loop stood still since last asked."""
    # The answer to this comes after any stall, and the service's clock has seen it by the next.
    await probe(connection, "Echo", "s", [""], timeout_seconds=30.0)
    lag = await probe(connection, "TakeLag", timeout_seconds=30.0)
    assert isinstance(lag, float)
    return lag


async def abuse(bus: PrivateBus, kind: str, count: int) -> None:
    """Let the abusive client run to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.bus_abuse",
        bus.address,
        kind,
        str(count),
        cwd=REPOSITORY,
    )
    async with asyncio.timeout(30):
        assert await process.wait() == 0


class Manager:
    """Answers the Manager's methods where there is no supervisor: reaping and reloading are real.

    :param bus: where the reaper asks systemd.
    """

    def __init__(self, bus: Bus, reloading: Reloading) -> None:
        self._reaper = Reaper(Systemd(bus), Jobs(lambda: None))
        self._reloading = reloading

    async def start(self, number: int) -> None:
        raise Unavailable("there is no supervisor")

    async def stop(self, number: int) -> None:
        raise Unavailable("there is no supervisor")

    async def restart(self, number: int) -> None:
        raise Unavailable("there is no supervisor")

    async def drain(self, number: int) -> None:
        raise Unavailable("there is no supervisor")

    async def rolling_restart(self) -> None:
        raise Unavailable("there is no supervisor")

    async def reload(self) -> None:
        check_complete(await self._reloading.reload())

    async def reap(self, pid: int) -> int:
        return await self._reaper.reap(pid)


class Guarded:
    """What stands for the guard: the real objects over a state that the test sets.

    Its cards' thermal guards and its gateway are asked below ``folder``; a reload comes to what
    ``reloaded`` says.

    :param supervisor: to whom orders go; None: nobody.
    """

    def __init__(
        self, bus: Bus, data: GuardData, folder: Path, supervisor: Supervisor | None = None
    ) -> None:
        self.bus = bus
        self.source = FixedSource(data)
        self.node = NodeOfCards()
        self.reloaded = ReloadAnswer(applied=["guard"])
        thermal = ThermalGuards(self.node, partial(socket_of, folder))
        reloading = Reloading(self._reload)
        manager: ManagerCommands = Manager(bus, reloading)
        if supervisor is not None:
            manager = Orders(
                supervisor.operations, supervisor.rolling, supervisor.reaper, reloading
            )
        commands = Commands(thermal, manager, GatewayControl(folder / "gateway.sock"))
        bus.objects.export(LOG_CONTROL_OBJECT, [exported_log_control(GuardLog())])
        self.publisher = Publisher(bus, self.source, commands)

    async def _reload(self) -> ReloadAnswer:
        return self.reloaded

    def publish(self, data: GuardData) -> None:
        self.source.data = data
        self.publisher.publish(data)


@asynccontextmanager
async def guarded(
    bus: PrivateBus,
    data: GuardData | None = None,
    polkit: Callable[[Bus], Polkit] | None = None,
    denials: Denials | None = None,
) -> AsyncIterator[Guarded]:
    """The exported service with its name owned."""
    connection = Bus(bus.address)
    permission = Permission(connection, polkit and polkit(connection), denials)
    connection.authorize_by(permission.authorize)
    served = Guarded(connection, data or state(), bus.folder)
    await connection.connect()
    await connection.own_name(BUS_NAME)
    try:
        yield served
    finally:
        served.publisher.close()
        await connection.close()
