# SPDX-License-Identifier: Apache-2.0
"""systemd's manager as far as the guard asks it, on a private bus: units are real processes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from gpuwarden.systemd.units import MANAGER, MANAGER_PATH, NO_SUCH_UNIT, SYSTEMD, unit_path
from tests.integration.private_bus import PrivateBus

POLICY = f"""\
<busconfig>
  <policy context="default">
    <allow own="{SYSTEMD}"/>
    <allow send_destination="{SYSTEMD}"/>
  </policy>
</busconfig>
"""
ANSWERS = {"Subscribe": "", "ResetFailedUnit": "", "StartUnit": "o", "GetAll": "a{sv}"}


class StandInSystemd:
    """Runs a unit's command when it is started, and tells how it ended, like a oneshot's.

    :ivar started: the units in the order of their starts.
    """

    def __init__(self, command_of: Callable[[str], Sequence[str]]) -> None:
        self.started: list[str] = []
        self._command_of = command_of
        self._ends: dict[str, tuple[str, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bus: Any = None

    async def connect(self, address: str) -> None:
        self._bus = await MessageBus(address, BusType.SYSTEM).connect()
        self._bus.add_message_handler(self._answer)
        await self._bus.request_name(SYSTEMD)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._bus.disconnect()

    def _answer(self, message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL or message.member not in ANSWERS:
            return False
        if message.member == "ResetFailedUnit" and message.body[0] not in self._ends:
            return Message.new_error(message, NO_SUCH_UNIT, "not loaded")
        body: list[Any] = []
        if message.member == "StartUnit":
            body = [f"{MANAGER_PATH}/job/{len(self.started) + 1}"]
            self._begin(message.body[0], body[0])
        elif message.member == "GetAll":
            body = [self._properties(str(message.path))]
        return Message.new_method_return(message, ANSWERS[message.member], body)

    def _begin(self, unit: str, job: str) -> None:
        self.started.append(unit)
        task = asyncio.create_task(self._run(unit, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, unit: str, job: str) -> None:
        process = await asyncio.create_subprocess_exec(*self._command_of(unit))
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        kind = "success" if status == 0 else "exit-code" if status > 0 else "signal"
        self._ends[unit] = (kind, abs(status))
        result = "done" if status == 0 else "failed"
        signal = Message.new_signal(
            MANAGER_PATH, MANAGER, "JobRemoved", "uoss", [len(self.started), job, unit, result]
        )
        await self._bus.send(signal)

    def _properties(self, path: str) -> dict[str, Variant]:
        for unit, (result, status) in self._ends.items():
            if unit_path(unit) == path:
                return {"Result": Variant("s", result), "ExecMainStatus": Variant("i", status)}
        return {}


@asynccontextmanager
async def stand_in_systemd(
    bus: PrivateBus, command_of: Callable[[str], Sequence[str]]
) -> AsyncIterator[StandInSystemd]:
    """The stand-in, owning systemd's name on a bus with ``POLICY``."""
    manager = StandInSystemd(command_of)
    await manager.connect(bus.address)
    try:
        yield manager
    finally:
        await manager.close()
