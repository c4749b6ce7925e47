# SPDX-License-Identifier: Apache-2.0
"""The loop round one card: look, decide, set, publish; and what operators may ask of it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from gpuwarden.control.lease import Lease
from gpuwarden.control.lease_store import LeaseStore
from gpuwarden.control.snapshot import (
    SnapshotError,
    SnapshotWriter,
    boot_id,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.states import ThermalData
from gpuwarden.nvml.thread import DriverThread
from gpuwarden.systemd.events import Event
from gpuwarden.systemd.former import former_processes
from gpuwarden.systemd.notify import Notifier
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.chronicle import Chronicle, former_xids
from gpuwarden.thermal.decision import Authority, Judgement, Settings
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.history import History
from gpuwarden.thermal.lease import released
from gpuwarden.thermal.mind import Mind, Rules
from gpuwarden.thermal.observation import NotSeen, Observation, Seen, Trouble, reading_of
from gpuwarden.thermal.publication import CardFacts, status_line, thermal_data
from gpuwarden.thermal.view import BLIND_AFTER_SECONDS, HELD, View, aged, judged, take, taken_back
from gpuwarden.values import ThermalState

PUBLISH_EVERY_SECONDS = 1.0
APPLY_EVERY_SECONDS = 1.0  # also what didn't change: a refused write is tried again
LOOK_AGAIN_SECONDS = 10.0  # design: a lost card or a missing driver is looked for that often
LOOK_FOR_PLAN_SECONDS = 1.0  # reading a file costs nothing
STOP_SECONDS = 5.0  # for the last calls to the driver, which may never return

Result = TypeVar("Result")


class Guarded(Protocol):
    """A card as :class:`gpuwarden.thermal.card.GuardedCard` is one."""

    def look(self) -> Observation:
        """Look at it once."""

    def apply(self, settings: Settings) -> tuple[Happening, ...]:
        """Bring settings about."""

    def happenings(self) -> tuple[Happening, ...]:
        """What has happened meanwhile."""

    def configure(self, options: Options) -> None:
        """Go by other options."""

    def authority(self) -> Authority:
        """What can be moved."""

    def reasons(self) -> dict[str, str]:
        """Why an actuator is missing."""

    def restore(self, keep_safe: bool = False) -> tuple[Happening, ...]:
        """Put everything back."""

    def close(self) -> None:
        """Let go of it."""

    @property
    def original_watts(self) -> float | None:
        """The administrator's power limit."""

    @property
    def sm_lock_mhz(self) -> int | None:
        """Our SM clock lock."""


class ThermalGuard:
    """Guards one card.

    :param note: what is to be said with every state, such as a refused configuration.
    :param former: the processes of a former guard that the driver has not let go of.
    :ivar chronicle: what has happened, :ivar history: what was measured.
    """

    def __init__(
        self,
        gpu_index: int,
        card: Guarded,
        snapshot_file: Path,
        leases: LeaseStore,
        rules: Rules,
        *,
        sample_seconds: float,
        note: str = "",
        simulated: bool = False,
        notifier: Notifier | None = None,
        former: Callable[[], list[int]] = former_processes,
    ) -> None:
        self._former = former
        self._entered = False
        self.sample_seconds = sample_seconds
        self.note = note
        self.mind = Mind(rules)
        self.chronicle = Chronicle(gpu_index, former_xids(snapshot_file))
        self.history = History()
        self._card = card
        self._leases = leases
        self.lease = leases.load()
        self._simulated = simulated
        self._notifier = notifier or Notifier()
        self._writer = SnapshotWriter(snapshot_file, f"thermal@{gpu_index}")
        self.view = _first_view(gpu_index, snapshot_file)
        self._thread: DriverThread | None = None
        self._outstanding = False
        self._looked = asyncio.Event()
        self._woken = asyncio.Event()
        self._applied: Settings | None = None
        self._applied_at = 0.0
        self._closed = False
        self._ready = False
        self._facts = CardFacts()

    async def run(self) -> None:
        """Guard the card until cancelled."""
        self._thread = DriverThread("driver")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._guard())
            tasks.create_task(self._tick())

    async def stop(self) -> None:
        """Put the card back; one that is still hot keeps what cools it. Call after ``run``."""
        keep_safe = self.mind.is_hot(self.view)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                self._told(await self._call(lambda: self._card.restore(keep_safe)))
                await self._call(self._card.close)
                return
        text = "the driver has not answered: what was set could not be put back"
        self.chronicle.tell(self.view, Event.THERMAL_REFUSED, text, logging.ERROR)

    # --- what operators ask for

    def data(self) -> ThermalData:
        """The state as it is published."""
        notes = [self.note]
        if self.mind.refusal:
            notes.append("the configured thresholds are refused, the card's own hold")
        note = "; ".join(text for text in notes if text)
        xids = self.chronicle.xids
        return thermal_data(self.view, self._facts, self.mind.thresholds, note, xids)

    def lend(self, lease: Lease) -> None:
        """Begin an override or a release. Raises OSError: it could not be kept."""
        self._leases.save(lease)
        lets_go = lease.state == "released"
        if self._release is not None and not lets_go:
            self.chronicle.tell(self.view, Event.CARD_TAKEN_BACK, "release ended: overridden")
        self._go_by(lease)
        event = Event.CARD_RELEASED if lets_go else Event.OVERRIDE_STARTED
        text = "released" if lets_go else f"override: {lease.state}"
        self.chronicle.tell(self.view, event, f"{text} until {lease.until}", logging.WARNING)

    def end_lease(self, why: str) -> None:
        """End an override or a release, if one runs."""
        lease = self.lease
        self._leases.clear()
        if lease is None:
            return
        self._go_by(None)
        was_let_go = lease.state == "released"
        event = Event.CARD_TAKEN_BACK if was_let_go else Event.OVERRIDE_ENDED
        what = "release" if was_let_go else f"override to {lease.state}"
        self.chronicle.tell(self.view, event, f"{what} ended: {why}")

    async def reconfigure(self, rules: Rules, options: Options, sample_seconds: float) -> None:
        """Go by another configuration. Raises ThresholdsError, and then keeps the old one."""
        self.mind.check(rules)
        self.mind.follow(rules)
        self.sample_seconds = sample_seconds
        self.note = ""
        self._card.configure(options)
        self._woken.set()

    @property
    def _release(self) -> Lease | None:
        lease = self.lease
        return lease if lease is not None and lease.state == "released" else None

    def _go_by(self, lease: Lease | None) -> None:
        was_released, self.lease = self._release is not None, lease
        if was_released and self._release is None:
            self.view = taken_back(self.view, time.monotonic())
        self._woken.set()

    # --- the loop

    async def _guard(self) -> None:
        due = time.monotonic()
        while True:
            is_released = self._release is not None
            pause = await (self._stay_away() if is_released else self._look())
            # A late sample is not made up for: the next comes a full period after this.
            due = max(due + pause, time.monotonic())
            # No wait_for: Python 3.11's loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due - time.monotonic()):
                    await self._woken.wait()
                due = time.monotonic()
            self._woken.clear()

    async def _look(self) -> float:
        """One look and what follows from it; the seconds until the next."""
        self._closed = False
        if not self._entered and (held := self._former()):
            return self._wait_for_former(held)
        self._entered = True
        observation = await self._call(self._card.look)
        now = time.monotonic()
        self._told(self._card.happenings())
        self._gather_facts()  # before the first word about a card that was just opened
        self.view = take(self.view, observation, now)
        if isinstance(observation, Seen):
            if self.mind.learn(observation.limits, self._card.authority(), self.view):
                assert self.mind.thresholds is not None, "just learnt"
                self.chronicle.thresholds(self.view, self.mind.thresholds, self.mind.refusal)
            reading = reading_of(observation, now)
            self.history.see(reading)
            self._judged(self.mind.decide(reading, self.lease))
        else:
            self.mind.meet(self._card.authority())
            self._consider_silence()
        if self.view.state is not ThermalState.RELEASED:  # taken back, and not read yet
            await self._apply()
        self._gather_facts()
        self._looked.set()
        return self._pause(observation)

    def _wait_for_former(self, held: list[int]) -> float:
        """Don't ask a driver that never answered the guard before: it would be one more of them."""
        pids = ", ".join(str(pid) for pid in held)
        text = (
            f"its former guard (PID {pids}) hangs in the driver and no signal ends it; the driver "
            "is asked again when it has ended, if it doesn't: reboot"
        )
        unseen = NotSeen(self.view.card, Trouble.NO_DRIVER, text)
        self.view = take(self.view, unseen, time.monotonic())
        self._consider_silence()
        self._looked.set()
        return LOOK_AGAIN_SECONDS

    async def _stay_away(self) -> float:
        """The card is released: everything back, closed, and nothing asked of it."""
        if not self._closed:
            keep_safe = self.mind.is_hot(self.view)
            self._told(await self._call(lambda: self._card.restore(keep_safe)))
            await self._call(self._card.close)
            self._closed, self._applied = True, None
        self._consider_silence()
        self._gather_facts()
        self._looked.set()
        return PUBLISH_EVERY_SECONDS

    async def _apply(self) -> None:
        settings, now = self.view.judgement.settings, time.monotonic()
        if settings == self._applied and now - self._applied_at < APPLY_EVERY_SECONDS:
            return
        self._told(await self._call(lambda: self._card.apply(settings)))
        self._applied, self._applied_at = settings, now

    async def _call(self, function: Callable[[], Result]) -> Result:
        assert self._thread is not None, "started with run"
        self._outstanding = True
        try:
            return await self._thread.call(function)
        finally:
            self._outstanding = False

    async def _tick(self) -> None:
        """Publish each second, whatever the driver does; first when there is something to say."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BLIND_AFTER_SECONDS):
                await self._looked.wait()
        before = time.monotonic()
        while True:
            now = time.monotonic()
            self.view, before = aged(self.view, now - before), now
            if self.lease is not None and not self.lease.runs(boottime_nanoseconds()):
                self.end_lease("its time is over")
            self._consider_silence()
            limit = self.view.seen.condition.power_limit_watts if self.view.seen else None
            self.history.close_second(_unix_microseconds(), limit, self.view.state)
            self._publish()
            if not self._outstanding or self._is_fresh():
                self._notifier.watchdog()
            await asyncio.sleep(self._until_next_tick(now))

    def _consider_silence(self) -> None:
        release = self._release
        if release is not None and self._closed:
            self._judged(released(release))
            return
        judgement = self.mind.without_reading(self.view, time.monotonic(), self.lease)
        if judgement is not None:
            self._judged(judgement)

    def _judged(self, judgement: Judgement) -> None:
        before = self.view
        self.view = judged(before, judgement, _unix_microseconds())
        self.chronicle.changed(before, self.view)
        if self._ready and before.judgement.settings != judgement.settings:
            self._publish()  # the gateway shall know at once
        elif self._ready and before.state != judgement.state:
            self._publish()

    def _gather_facts(self) -> None:
        card = self._card
        self._facts = CardFacts(card.original_watts, card.sm_lock_mhz, card.reasons())

    def _told(self, happenings: tuple[Happening, ...]) -> None:
        for happening in happenings:
            self.chronicle.happened(happening)

    def _publish(self) -> None:
        data = self.data()
        self._writer.publish_or_say(data)  # of an old one readers take the card for blind: safe
        self._notifier.status(status_line(data, self._simulated))
        if not self._ready:
            self._ready = True
            self._notifier.ready()

    def _until_next_tick(self, now: float) -> float:
        """A second, or less if sight is lost sooner."""
        if self.view.seen is None:
            return PUBLISH_EVERY_SECONDS
        left = self.view.seen_at + BLIND_AFTER_SECONDS - now
        return max(min(PUBLISH_EVERY_SECONDS, left), 0.0)

    def _is_fresh(self) -> bool:
        """Whether a sample came in lately, so that one outstanding call is nothing to worry at."""
        return time.monotonic() - self.view.seen_at < BLIND_AFTER_SECONDS

    def _pause(self, observation: Observation) -> float:
        if not isinstance(observation, NotSeen) or observation.trouble is Trouble.SENSOR:
            return self.sample_seconds
        if observation.trouble is Trouble.NO_PLAN:
            return LOOK_FOR_PLAN_SECONDS
        return LOOK_AGAIN_SECONDS


def _first_view(gpu_index: int, snapshot_file: Path) -> View:
    """Nothing seen yet; the counters go on from a former guard of this boot."""
    view = View(gpu_index, time.monotonic(), _unix_microseconds())
    try:
        former = read_snapshot(snapshot_file, ThermalData)
    except SnapshotError:
        return view
    if former.boot_id != boot_id():
        return view
    data = former.data
    return replace(
        view,
        throttles=data.throttles,
        recoveries=data.recoveries,
        held=data.state in (*HELD, ThermalState.RECOVERING),
        throttle_seconds=data.throttle_seconds,
        state_seconds=data.state_seconds,
    )


def _unix_microseconds() -> int:
    return time.time_ns() // 1000
