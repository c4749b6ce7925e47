# SPDX-License-Identifier: Apache-2.0
"""A host on a private bus: a tuned that answers before it has done it, and a systemd round it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from gpuwarden import names
from gpuwarden.systemd.units import MANAGER, MANAGER_PATH, SYSTEMD, unit_path
from tests.integration.private_bus import PrivateBus

POLICY = f"""\
<busconfig>
  <policy context="default">
    <allow own="{SYSTEMD}"/>
    <allow send_destination="{SYSTEMD}"/>
    <allow own="{names.TUNED_BUS_NAME}"/>
    <allow send_destination="{names.TUNED_BUS_NAME}"/>
  </policy>
</busconfig>
"""
RIVAL = "power-profiles-daemon.service"
RECOMMENDED = "virtual-guest"
STOCK = {"balanced", RECOMMENDED, "gpuwarden-day", "gpuwarden-night"}


@dataclass
class Host:
    """What is so on the host; a test sets it and looks at it.

    :ivar in_force: what tuned has really set; it answers first.
    :ivar refusals: what tuned says to a profile; ``breaks``, to one that it has begun to set.
    :ivar dies_at: the profile that ends it while it sets it.
    """

    load_state: str = "loaded"
    runs: bool = False
    on_bus: bool = True
    starts: bool = True
    chosen: str = ""
    manual: bool = False
    in_force: str = ""
    profiles: set[str] = field(default_factory=lambda: set(STOCK))
    refusals: dict[str, str] = field(default_factory=dict)
    breaks: dict[str, str] = field(default_factory=dict)
    dies_at: str = ""
    verified: list[tuple[bool, bool]] = field(default_factory=list)
    rival_is_active: bool = False
    going_down: bool = False
    day: str = "*-*-* 07:00:00"
    night: str = "*-*-* 19:00:00"
    firing: set[str] = field(default_factory=set)
    tuning_unit_is_up: bool = False
    job_results: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def put_to_day(self) -> None:
        """Whatever the clock says: the day began a minute ago or less, the night more than that."""
        self.day, self.night = "*-*-* *:*:00", "2020-01-01"

    def put_to_night(self) -> None:
        self.put_to_day()
        self.day, self.night = self.night, self.day


class Peers:
    """The two services."""

    def __init__(self, address: str, host: Host) -> None:
        self._address = address
        self._host = host
        self._systemd: Any = None
        self._tuned: Any = None
        self._jobs = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._systemd = await MessageBus(self._address, BusType.SYSTEM).connect()
        self._systemd.add_message_handler(self._answer_as_systemd)
        await self._systemd.request_name(SYSTEMD)
        if self._host.runs:
            await self.start_tuned()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for bus in (self._systemd, self._tuned):
            if bus is not None:
                bus.disconnect()

    async def start_tuned(self) -> None:
        """It begins with the profile that was chosen, or the one that it recommends."""
        host = self._host
        host.runs = True
        if not host.chosen and not host.manual:
            host.chosen = RECOMMENDED
        host.in_force = host.chosen
        if host.on_bus:
            self._tuned = await MessageBus(self._address, BusType.SYSTEM).connect()
            self._tuned.add_message_handler(self._answer_as_tuned)
            await self._tuned.request_name(names.TUNED_BUS_NAME)

    def end_tuned(self) -> None:
        self._host.runs, self._host.in_force = False, ""
        if self._tuned is not None:
            self._tuned.disconnect()
            self._tuned = None

    # -- systemd -----------------------------------------------------------------------------

    def _answer_as_systemd(self, message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        if message.member in ("Subscribe", "ResetFailedUnit"):
            return Message.new_method_return(message)
        if message.member in ("StartUnit", "StopUnit", "ReloadOrRestartUnit"):
            return self._job(message)
        if message.member == "Get":
            state = "stopping" if self._host.going_down else "running"
            return Message.new_method_return(message, "v", [Variant("s", state)])
        if message.member == "GetAll":
            properties = self._properties(str(message.path))
            return Message.new_method_return(message, "a{sv}", [properties])
        return False

    def _job(self, message: Message) -> Message:
        unit = str(message.body[0])
        self._jobs += 1
        job = f"{MANAGER_PATH}/job/{self._jobs}"
        self._host.told.append(f"{message.member} {unit}")
        self._later(self._do_job(str(message.member), unit, job))
        return Message.new_method_return(message, "o", [job])

    async def _do_job(self, member: str, unit: str, job: str) -> None:
        result = self._host.job_results.get(unit, "done")
        if unit == names.TUNED_UNIT and member == "StartUnit":
            if self._host.starts:
                await self.start_tuned()
            else:
                result = "failed"
        elif unit == names.TUNED_UNIT:
            self.end_tuned()
        body = [self._jobs, job, unit, result]
        await self._systemd.send(
            Message.new_signal(MANAGER_PATH, MANAGER, "JobRemoved", "uoss", body)
        )

    def _properties(self, path: str) -> dict[str, Variant]:
        host = self._host
        if path == unit_path(names.TUNED_UNIT):
            return {
                "LoadState": Variant("s", host.load_state),
                "ActiveState": Variant("s", "active" if host.runs else "inactive"),
                "Conflicts": Variant("as", ["shutdown.target", RIVAL]),
            }
        if path == unit_path(names.TUNING_UNIT):
            state = "active" if host.tuning_unit_is_up else "inactive"
            return {"ActiveState": Variant("s", state)}
        if path == unit_path(RIVAL):
            return {"ActiveState": Variant("s", "active" if host.rival_is_active else "inactive")}
        for time_of_day in ("day", "night"):
            if path == unit_path(names.tuning_timer(time_of_day)):
                state = "running" if time_of_day in host.firing else "waiting"
                rows = [["OnCalendar", getattr(host, time_of_day), 0]]
                return {
                    "SubState": Variant("s", state),
                    "TimersCalendar": Variant("a(sst)", rows),
                }
        return {}

    # -- tuned -------------------------------------------------------------------------------

    def _answer_as_tuned(self, message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        member = str(message.member)
        self._host.told.append(" ".join([member, *map(str, message.body)]))
        signature, value = self._tuned_says(member, [str(each) for each in message.body])
        return Message.new_method_return(message, signature, [value])

    def _tuned_says(self, member: str, arguments: list[str]) -> tuple[str, Any]:
        host = self._host
        if member in ("switch_profile", "auto_profile"):
            return "(bs)", self._switch(*arguments)
        if member == "disable":
            host.chosen, host.manual, host.in_force = "", True, ""
        if member == "start" and host.dies_at:
            self._later(self._die())
        if member == "stop":
            host.in_force = ""
        answers: dict[str, tuple[str, Any]] = {
            "active_profile": ("s", host.chosen),
            "profile_mode": ("(ss)", ["manual" if host.manual else "auto", ""]),
            "recommend_profile": ("s", RECOMMENDED),
        }
        if member.startswith("verify_profile"):
            strict, lenient = host.verified[0] if host.verified else (True, True)
            if member.endswith("missing") and host.verified:
                host.verified.pop(0)
            return "b", lenient if member.endswith("missing") else strict
        return answers.get(member, ("b", True))

    def _switch(self, profile: str = "") -> list[object]:
        host = self._host
        if profile not in host.profiles and profile:
            return [False, f"Requested profile '{profile}' doesn't exist."]
        if profile in host.refusals:
            return [False, host.refusals[profile]]
        self._later(self._set(profile or RECOMMENDED, manual=bool(profile)))
        return [True, "OK"]

    async def _set(self, profile: str, *, manual: bool) -> None:
        """What tuned does after its answer."""
        await asyncio.sleep(0)
        host, former = self._host, self._host.chosen
        if profile == host.dies_at:
            return
        if profile in host.breaks:
            await self._tell(profile, False, host.breaks[profile])
            await self._tell(former, True, "OK")
            return
        host.chosen, host.manual, host.in_force = profile, manual, profile
        await self._tell(profile, True, "OK")

    async def _die(self) -> None:
        await asyncio.sleep(0)  # its answer goes out first
        self.end_tuned()

    async def _tell(self, profile: str, worked: bool, why: str) -> None:
        await self._tuned.send(
            Message.new_signal(
                names.TUNED_OBJECT,
                names.TUNED_INTERFACE,
                names.TUNED_PROFILE_CHANGED,
                "sbs",
                [profile, worked, why],
            )
        )

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def peers(bus: PrivateBus, host: Host) -> AsyncIterator[Peers]:
    """Both services, on a bus with ``POLICY``."""
    both = Peers(bus.address, host)
    await both.start()
    try:
        yield both
    finally:
        await both.stop()
