# SPDX-License-Identifier: Apache-2.0
"""systemd's manager over D-Bus: start, stop and watch units that we know by name.

Signals are subscribed to before anything is asked for, so no answer can be missed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import RemoteError, UnknownObject
from gpuwarden.bus.signals import Signal

log = logging.getLogger(__name__)

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
NO_SUCH_UNIT = f"{SYSTEMD}.NoSuchUnit"
NO_SUCH_PROCESS = f"{SYSTEMD}.NoSuchProcess"
JOB_INTERFACE = f"{SYSTEMD}.Job"
PROPERTIES = "org.freedesktop.DBus.Properties"
READ_TIMEOUT_SECONDS = 5.0  # the guard's loop waits for it; its watchdog allows 30 s
ACT_TIMEOUT_SECONDS = 30.0  # while systemd reloads its units, it answers nobody


@dataclass(frozen=True)
class UnitProperties:
    """One unit's properties as systemd names them: of every unit, and of its own kind."""

    unit: dict[str, Any]
    own: dict[str, Any]


class JobError(Exception):
    """A job ended otherwise than done; the text names unit and systemd's word for the result.

    :ivar is_replaced: somebody's other job on the unit has taken its place.
    """

    def __init__(self, text: str, *, is_replaced: bool = False) -> None:
        super().__init__(text)
        self.is_replaced = is_replaced


@dataclass(frozen=True)
class _Job:
    """A job that somebody waits for; ``ended`` gets systemd's word for its result."""

    method: str
    unit: str
    ended: asyncio.Future[str]

    def result_of(self, active_state: str) -> str:
        """Systemd's word, where it has spoken it to nobody: by the state that the unit is in."""
        down = active_state in ("inactive", "failed")
        wanted = down if self.method == "StopUnit" else active_state == "active"
        return "done" if wanted else "failed"


class Systemd:
    """The service manager.

    :raises gpuwarden.bus.errors.BusError: from every call, when the bus or systemd refuses.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._jobs: dict[str, _Job] = {}
        self._early: dict[str, str] = {}
        self._asking = 0

    async def subscribe(self, reconnected: Callable[[], None]) -> None:
        """Ask systemd for its signals, on each connection anew, and listen for finished jobs.

        :param reconnected: called on each later connection: signals were missed before it.
        """

        async def ask_again() -> None:
            await self._manager("Subscribe")
            reconnected()
            await self._catch_up()

        await self._bus.subscribe(SYSTEMD, MANAGER_PATH, MANAGER, "JobRemoved", self._job_removed)
        await self._manager("Subscribe")
        self._bus.on_connect(ask_again)

    async def watch(self, unit: str, changed: Callable[[str, dict[str, Any]], None]) -> None:
        """Call ``changed(unit, properties)`` whenever something of ``unit`` changes.

        The properties are those told with the change, which may be past when somebody asks.
        """
        await self._bus.subscribe(
            SYSTEMD,
            unit_path(unit),
            PROPERTIES,
            "PropertiesChanged",
            lambda signal: changed(unit, signal.body[1]),
        )

    async def properties(self, unit: str) -> UnitProperties:
        """All properties of a unit; systemd loads it if it isn't."""
        path = unit_path(unit)
        (general,) = await self._get_all(path, f"{SYSTEMD}.Unit")
        kind = unit.rsplit(".", 1)[1].capitalize()
        (special,) = await self._get_all(path, f"{SYSTEMD}.{kind}")
        return UnitProperties(general, special)

    async def start(self, unit: str, timeout_seconds: float) -> None:
        """Start a unit, forgetting former failures, and wait for the job's end.

        :raises JobError: the job ended otherwise than done, or not in time.
        """
        await self.reset_failed(unit)
        await self._job("StartUnit", unit, timeout_seconds)

    async def stop(self, unit: str, timeout_seconds: float) -> None:
        """Stop a unit, its restart too, and wait for the job's end. Raises JobError."""
        await self._job("StopUnit", unit, timeout_seconds)

    async def kill(self, unit: str, signal_number: int) -> None:
        """Send a signal to every process of a unit; no error if it has none by now."""
        try:
            await self._manager("KillUnit", "ssi", [unit, "all", signal_number])
        except RemoteError as error:
            if error.name not in (NO_SUCH_UNIT, NO_SUCH_PROCESS):
                raise

    async def reload(self, unit: str, timeout_seconds: float) -> None:
        """Reload a unit, or start it if it is down, and wait for the end. Raises JobError."""
        await self._job("ReloadOrRestartUnit", unit, timeout_seconds)

    async def order(self, method: str, unit: str) -> None:
        """Have a job made (``StartUnit``, ``StopUnit``) and wait for nothing.

        For what is ordered after the unit that asks: to wait for it would be to wait for oneself.
        """
        await self._manager(method, "ss", [unit, "replace"])

    async def is_going_down(self) -> bool:
        """Whether the whole system is being shut down or rebooted."""
        (state,) = await self._bus.call(
            SYSTEMD,
            MANAGER_PATH,
            PROPERTIES,
            "Get",
            "ss",
            [MANAGER, "SystemState"],
            READ_TIMEOUT_SECONDS,
        )
        return bool(state == "stopping")

    async def reset_failed(self, unit: str) -> None:
        """Forget a unit's failure and its count of starts; no error if it isn't loaded."""
        try:
            await self._manager("ResetFailedUnit", "s", [unit])
        except RemoteError as error:
            if error.name != NO_SUCH_UNIT:
                raise

    async def _job(self, method: str, unit: str, timeout_seconds: float) -> None:
        self._asking += 1
        try:
            (path,) = await self._manager(method, "ss", [unit, "replace"])
            result = self._early.get(path)  # others may be about to learn of the same job
            if result is None and path not in self._jobs:  # else it was merged with one of ours
                self._jobs[path] = _Job(method, unit, asyncio.get_running_loop().create_future())
        finally:
            self._asking -= 1
            if not self._asking:
                self._early.clear()
        if result is None:
            try:
                async with asyncio.timeout(timeout_seconds):
                    result = await asyncio.shield(self._jobs[path].ended)
            except TimeoutError:
                raise JobError(f"{method} of {unit}: no end in {timeout_seconds:.0f} s") from None
        if result not in ("done", "skipped"):
            raise JobError(f"{method} of {unit}: {result}", is_replaced=result == "canceled")

    async def _catch_up(self) -> None:
        """Learn of the jobs that ended while there was no bus to tell it on."""
        for path, job in list(self._jobs.items()):
            try:
                await self._get_all(path, JOB_INTERFACE)
            except UnknownObject:
                state = (await self.properties(job.unit)).unit["ActiveState"]
                if self._jobs.pop(path, None) is job:
                    job.ended.set_result(job.result_of(state))

    def _job_removed(self, signal: Signal) -> None:
        """JobRemoved(id, job path, unit, result): may come before the answer that names the job."""
        _, path, _, result = signal.body
        job = self._jobs.pop(path, None)
        if job is not None:
            job.ended.set_result(result)
        if self._asking:  # perhaps for the same job: its name may be on its way
            self._early[path] = result

    def _manager(
        self, member: str, signature: str = "", body: list[Any] | None = None
    ) -> Awaitable[list[Any]]:
        return self._bus.call(
            SYSTEMD, MANAGER_PATH, MANAGER, member, signature, body, ACT_TIMEOUT_SECONDS
        )

    def _get_all(self, path: str, interface: str) -> Awaitable[list[Any]]:
        return self._bus.call(
            SYSTEMD, path, PROPERTIES, "GetAll", "s", [interface], READ_TIMEOUT_SECONDS
        )


def unit_path(unit: str) -> str:
    """The bus path of a unit: sd_bus_path_encode, each odd byte as ``_xx``."""
    encoded = "".join(
        character
        if character.isascii() and character.isalnum() and not (character.isdigit() and index == 0)
        else "".join(f"_{byte:02x}" for byte in character.encode())
        for index, character in enumerate(unit)
    )
    return f"{MANAGER_PATH}/unit/{encoded or '_'}"
