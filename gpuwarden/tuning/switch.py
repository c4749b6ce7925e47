# SPDX-License-Identifier: Apache-2.0
"""Switches the host from profile to profile, and back to what it had: decides by the pure part."""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError
from gpuwarden.config.tuning import TuningSettings
from gpuwarden.control.host import TuningData
from gpuwarden.control.snapshot import boot_id
from gpuwarden.profiles import known_profiles, tuned_is_installed
from gpuwarden.systemd.units import Systemd
from gpuwarden.tuning import host
from gpuwarden.tuning.decision import (
    Found,
    Record,
    Restoration,
    TimeOfDay,
    Wish,
    remember,
    restoration,
    time_of_day_for,
)
from gpuwarden.tuning.host import UntunableError
from gpuwarden.tuning.record import drop_record, keep_record, read_record
from gpuwarden.tuning.timers import read_timer
from gpuwarden.tuning.tuned import NoTunedError, Tuned, TunedError, Verdict

log = logging.getLogger(__name__)

VERIFY_NOTE = (
    "`tuned-adm verify` finds settings that are not as the profile has them; /var/log/tuned/"
    "tuned.log names them. /etc/sysctl.d wins over a profile"
)


@dataclass(frozen=True)
class SwitchPlaces:
    """What lies where; the defaults are the contract's."""

    record_file: Path = names.TUNING_RECORD_FILE
    profiles: Callable[[], Collection[str]] = known_profiles
    has_tuned: Callable[[], bool] = tuned_is_installed


class Switch:
    """One run's worth of switching, on a connected bus."""

    def __init__(self, bus: Bus, systemd: Systemd, places: SwitchPlaces) -> None:
        self._systemd = systemd
        self._tuned = Tuned(bus)
        self._places = places

    async def time_of_day(self, wish: Wish) -> TimeOfDay:
        """Which profile is wanted now. Raises TunedError where systemd can't be asked."""
        now = time.time()
        try:
            day = await read_timer(self._systemd, "day", now)
            night = await read_timer(self._systemd, "night", now)
        except BusError as error:
            raise TunedError(f"systemd can't be asked about the timers: {error}") from error
        return time_of_day_for(wish, day, night)

    # -- tuning ------------------------------------------------------------------------------

    async def tune(self, time_of_day: TimeOfDay, settings: TuningSettings) -> TuningData:
        """Have the profile of this time of day in force.

        :raises UntunableError: this host has no tuned, or another tuner.
        :raises TunedError: tuned does not do it; what was in force is in force again.
        :raises RecordError: what the host has now could not be kept, so nothing is changed.
        """
        profiles = {"day": settings.day_profile, "night": settings.night_profile}
        for when, profile in profiles.items():
            self._require_known(profile, f"{when}_profile")
        target = profiles[time_of_day]
        known = read_record(self._places.record_file)
        was_running = await host.is_running(self._systemd)
        if not was_running:
            await self._start_tuned(known)
        try:
            found = await self._found(was_running)
            record = remember(known, found, target, boot_id())
            keep_record(record, self._places.record_file)
            verdict = await self._set(target, found)
        except (TunedError, UntunableError):
            if not was_running:
                await self._end_tuned(known)
            raise
        keep_record(record.model_copy(update={"ours": (target,)}), self._places.record_file)
        return TuningData(
            time_of_day=time_of_day,
            profile=target,
            former=record.former_profile,
            verified=verdict is not Verdict.DIFFERS,
            note=VERIFY_NOTE if verdict is Verdict.DIFFERS else "",
        )

    def _require_known(self, profile: str, key: str) -> None:
        """Before tuned is even started: its own refusal would come after a change."""
        if self._places.has_tuned() and profile not in self._places.profiles():
            raise TunedError(
                f'tuning.{key} is "{profile}", which is no profile that tuned knows '
                "(`tuned-adm list` names them)"
            )

    async def _set(self, target: str, found: Found) -> Verdict:
        """Set it where it isn't in force, or not as it should be."""
        if found.was_running and found.profile == target and found.manual:
            verdict = await self._tuned.verify()
            if verdict is not Verdict.DIFFERS:
                return verdict
        await self._tuned.switch(target)
        return await self._tuned.verify()

    async def in_force(self) -> str:
        """The profile in force, for whoever asks after a failure; empty where none is known."""
        try:
            return (await self._tuned.in_force()).profile
        except TunedError:
            return ""  # the failure itself is what is told

    # -- restoring ---------------------------------------------------------------------------

    async def restore(self, wish: Wish) -> str:
        """Put back what was there before us; what was done, in words.

        :raises TunedError: tuned does not do it; the record stays.
        :raises RecordError: what was there can't be told any more.
        """
        record = read_record(self._places.record_file)
        if record is None:
            return "nothing was changed, so there is nothing to put back"
        try:
            was_running = await host.is_running(self._systemd)
        except UntunableError as error:
            drop_record(self._places.record_file)
            return f"{error}, so what it had set stays until the next boot"
        going_down = await self._is_going_down()
        if wish is Wish.END and not was_running:
            return await self._leave_for_later(going_down)
        if not was_running:
            await host.start(self._systemd)
        found = await self._found(was_running)
        plan = restoration(record, found, boot_id())
        done = await self._put_back(plan, found)
        if plan.stop_tuned and not going_down:
            await self._tuned.take_back()
            await self._order("StopUnit", names.TUNED_UNIT)
            done += "; tuned, which did not run before, is stopped"
        drop_record(self._places.record_file)
        return done

    async def _put_back(self, plan: Restoration, found: Found) -> str:
        if plan.profile is None:
            return f"{found.profile or 'no profile'} was somebody's own choice, so it stays"
        if not plan.profile:
            await self._tuned.switch_off()
            return "no profile is in force, as before"
        if not plan.manual:
            await self._tuned.switch_to_recommended()
            return "tuned chooses by itself again, as before"
        gone = [each for each in plan.profile.split() if each not in self._places.profiles()]
        if gone:
            await self._tuned.switch_off()
            return f"{' '.join(gone)}, in force before, is no profile any more, so there is none"
        await self._tuned.switch(plan.profile)
        return f"{plan.profile} is in force again"

    async def _leave_for_later(self, going_down: bool) -> str:
        """A unit that ends can't wait for tuned to start: its end comes first for systemd."""
        if going_down:
            return "tuned has ended already; what was there before is put back after the next boot"
        unit = names.tuning_unit(Wish.OFF)
        await self._order("StartUnit", unit)
        return f"tuned does not run; {unit} puts back what was there before"

    # -- the two services --------------------------------------------------------------------

    async def _found(self, was_running: bool) -> Found:
        try:
            in_force = await self._tuned.in_force()
        except NoTunedError as error:
            raise UntunableError(str(error)) from error
        return Found(in_force.profile, in_force.manual, was_running)

    async def _start_tuned(self, known: Record | None) -> None:
        """Start it, and have it on record before that nobody else did."""
        if known is None:
            begun = Record(boot_id=boot_id(), started_tuned=True)
            keep_record(begun, self._places.record_file)
        try:
            await host.start(self._systemd)
        except TunedError:
            if known is None:
                drop_record(self._places.record_file)
            raise

    async def _end_tuned(self, known: Record | None) -> None:
        """After a failure: a tuned that was started in vain must not stay."""
        try:
            await self._order("StopUnit", names.TUNED_UNIT)
        except TunedError as error:
            log.warning("%s; tuned, which did not run before, runs on", error)
            return
        if known is None:
            drop_record(self._places.record_file)

    async def _is_going_down(self) -> bool:
        try:
            return await self._systemd.is_going_down()
        except BusError as error:
            raise TunedError(f"systemd can't be asked how it is: {error}") from error

    async def _order(self, method: str, unit: str) -> None:
        try:
            await self._systemd.order(method, unit)
        except BusError as error:
            raise TunedError(f"systemd refuses {method} of {unit}: {error}") from error
