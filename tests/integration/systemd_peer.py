# SPDX-License-Identifier: Apache-2.0
"""What stands for systemd on a private bus: units that start and stop at a word, jobs that end."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError, NoReply
from gpuwarden.bus.interface import Argument, Emits, Exported, Interface, Method, Property, Signal
from gpuwarden.bus.standard import PROPERTIES
from gpuwarden.bus.tree import ObjectTree
from gpuwarden.bus.wire import to_variant
from gpuwarden.systemd.units import JOB_INTERFACE, MANAGER, MANAGER_PATH, SYSTEMD, unit_path
from tests.integration.private_bus import PrivateBus

POLICY = (
    f'<busconfig><policy user="root"><allow own="{SYSTEMD}"/>'
    f'<allow send_destination="{SYSTEMD}"/></policy></busconfig>'
)
JOB = (Argument("name", "s"), Argument("mode", "s"))
JOB_REMOVED = Signal(
    "JobRemoved",
    "",
    (Argument("id", "u"), Argument("job", "o"), Argument("unit", "s"), Argument("result", "s")),
)


@dataclass
class Unit:
    """A unit as systemd would tell it."""

    name: str
    active_state: str = "inactive"
    main_pid: int = 0
    started_monotonic_microseconds: int = 1
    result: str = "success"
    restarts: int = 0
    exec_pid: int = 0
    exit_code: int = 0
    exit_status: int = 0
    control_group: str = ""


UNIT: Interface[Unit] = Interface(
    f"{SYSTEMD}.Unit",
    "",
    properties=(Property("ActiveState", "s", Emits.TRUE, lambda unit: unit.active_state, ""),),
)
SERVICE: Interface[Unit] = Interface(
    f"{SYSTEMD}.Service",
    "",
    properties=(
        Property("MainPID", "u", Emits.TRUE, lambda unit: unit.main_pid, ""),
        Property(
            "ExecMainStartTimestampMonotonic",
            "t",
            Emits.TRUE,
            lambda unit: unit.started_monotonic_microseconds,
            "",
        ),
        Property("Result", "s", Emits.TRUE, lambda unit: unit.result, ""),
        Property("NRestarts", "u", Emits.TRUE, lambda unit: unit.restarts, ""),
        Property("ExecMainPID", "u", Emits.TRUE, lambda unit: unit.exec_pid, ""),
        Property("ExecMainCode", "i", Emits.TRUE, lambda unit: unit.exit_code, ""),
        Property("ExecMainStatus", "i", Emits.TRUE, lambda unit: unit.exit_status, ""),
        Property("ControlGroup", "s", Emits.TRUE, lambda unit: unit.control_group, ""),
    ),
)
SOCKET: Interface[Unit] = Interface(
    f"{SYSTEMD}.Socket",
    "",
    properties=(Property("Result", "s", Emits.TRUE, lambda unit: "success", ""),),
)
RUNNING_JOB: Interface[None] = Interface(
    JOB_INTERFACE,
    "",
    properties=(Property("State", "s", Emits.FALSE, lambda job: "running", ""),),
)
SYSTEMD_MANAGER: Interface[None] = Interface(
    MANAGER,
    "",
    methods=(
        Method("Subscribe", ""),
        Method("ResetFailedUnit", "", inputs=(Argument("name", "s"),)),
        *(
            Method(name, "", inputs=JOB, outputs=(Argument("job", "o"),))
            for name in ("StartUnit", "StopUnit", "ReloadOrRestartUnit")
        ),
        Method(
            "KillUnit",
            "",
            inputs=(Argument("name", "s"), Argument("whom", "s"), Argument("signal", "i")),
        ),
    ),
    signals=(JOB_REMOVED,),
)


class NoSuchUnit(BusError):  # noqa: N818  named as its error on the bus is
    name = f"{SYSTEMD}.NoSuchUnit"


@dataclass
class SystemdPeer:
    """Units by name, and what was asked, as ``start NAME`` and ``stop NAME``.

    :ivar slow: units whose start doesn't end by itself, ``failing``: whose start fails,
        ``stubborn``: whose stop doesn't end before they are killed.
    :ivar silent: how often an order (``stop NAME``) is answered as if by nobody.
    """

    bus: Bus
    units: dict[str, Unit] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    slow: set[str] = field(default_factory=set)
    silent: dict[str, int] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    _stopping: dict[str, int] = field(default_factory=dict)
    _starting: dict[str, int] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(100))

    def add(self, *names: str) -> None:
        """Know these units, all of them down."""
        for name in names:
            unit = self.units[name] = Unit(name)
            kind = SOCKET if name.endswith(".socket") else SERVICE
            interfaces = [Exported(UNIT, lambda unit=unit: unit)]  # type: ignore[misc]
            interfaces.append(Exported(kind, lambda unit=unit: unit))  # type: ignore[misc]
            self.bus.objects.export(unit_path(name), interfaces)

    def change(self, name: str, active_state: str) -> None:
        """Put a unit into a state and tell."""
        unit = self.units[name]
        unit.active_state = active_state
        if active_state == "active":
            unit.main_pid = unit.exec_pid = next(self._numbers)
            unit.result, unit.exit_code, unit.exit_status = "success", 0, 0
        elif unit.main_pid and active_state not in ("deactivating", "reloading"):
            unit.main_pid, unit.exit_code = 0, 1
        signal = PROPERTIES.signal("PropertiesChanged")
        self.bus.emit(unit_path(name), PROPERTIES.name, signal, UNIT.name, {}, ["ActiveState"])

    def become_ready(self, name: str) -> None:
        """End the start of a slow unit."""
        number = self._starting.pop(name)
        self.change(name, "active")
        self._end(number, name, "done")

    def die(self, name: str, result: str, exit_status: int) -> None:
        """End a unit's main process, tell of it, and restart it before anybody can ask."""
        unit = self.units[name]
        told = {
            "Result": to_variant("s", result),
            "ExecMainPID": to_variant("u", unit.main_pid),
            "ExecMainCode": to_variant("i", 1 if result == "exit-code" else 2),
            "ExecMainStatus": to_variant("i", exit_status),
        }
        signal = PROPERTIES.signal("PropertiesChanged")
        self.bus.emit(unit_path(name), PROPERTIES.name, signal, SERVICE.name, told, [])
        unit.restarts += 1
        self.change(name, "activating")

    def exported(self) -> Exported[None]:
        """The manager."""
        return Exported(
            SYSTEMD_MANAGER,
            lambda: None,
            {
                "Subscribe": lambda: (),
                "ResetFailedUnit": self._reset_failed,
                "StartUnit": lambda name, mode: self._job("start", name),
                "ReloadOrRestartUnit": lambda name, mode: self._job("start", name),
                "StopUnit": lambda name, mode: self._job("stop", name),
                "KillUnit": lambda name, whom, signal: self._kill(name),
            },
        )

    def _job(self, verb: str, name: str) -> Sequence[object]:
        if name not in self.units:
            raise NoSuchUnit(f"Unit {name} not loaded.")
        if left := self.silent.pop(f"{verb} {name}", 0):
            if left > 1:
                self.silent[f"{verb} {name}"] = left - 1
            raise NoReply("systemd is busy")
        self.asked.append(f"{verb} {name}")
        if verb == "start" and name in self._starting:
            return (_job_path(self._starting[name]),)  # merged, as systemd does it
        number = next(self._numbers)
        if name in self._starting:
            self._end(self._starting.pop(name), name, "canceled")
        if verb == "stop" and name in self.stubborn:
            self._stopping[name] = number
            self.change(name, "deactivating")
        elif verb == "start" and name in self.failing:
            self.change(name, "failed")
            self._end(number, name, "failed")
        elif verb == "start" and name in self.slow:
            self._starting[name] = number
            self.bus.objects.export(_job_path(number), [Exported(RUNNING_JOB, lambda: None)])
            self.change(name, "activating")
        else:
            self.change(name, "active" if verb == "start" else "inactive")
            self._end(number, name, "done")  # before the answer that names the job, as systemd may
        return (_job_path(number),)

    def _reset_failed(self, name: str) -> Sequence[object]:
        if name in self.units and self.units[name].active_state == "failed":
            self.change(name, "inactive")
        return ()

    def _kill(self, name: str) -> Sequence[object]:
        self.asked.append(f"kill {name}")
        if name in self._stopping:
            self.change(name, "failed")
            self._end(self._stopping.pop(name), name, "done")
        return ()

    def end(self, name: str, active_state: str, result: str) -> None:
        """End a slow start; unheard where there is no bus."""
        self.change(name, active_state)
        self._end(self._starting.pop(name), name, result)

    def _end(self, number: int, name: str, result: str) -> None:
        path = _job_path(number)
        if self.bus.objects.exported_at(path):
            self.bus.objects.remove(path)
        self.bus.emit(MANAGER_PATH, MANAGER, JOB_REMOVED, number, path, name, result)


def _job_path(number: int) -> str:
    return f"{MANAGER_PATH}/job/{number}"


@asynccontextmanager
async def systemd(bus: PrivateBus) -> AsyncIterator[SystemdPeer]:
    """Systemd, on ``bus``."""
    async with systemd_at(bus.address) as peer:
        yield peer


@asynccontextmanager
async def systemd_at(address: str) -> AsyncIterator[SystemdPeer]:
    """Systemd, on the bus of that address."""
    peer = SystemdPeer(Bus(address, ObjectTree(MANAGER_PATH)))
    peer.bus.objects.export(MANAGER_PATH, [peer.exported()])
    await peer.bus.connect()
    await peer.bus.own_name(SYSTEMD)
    try:
        yield peer
    finally:
        await peer.bus.close()
