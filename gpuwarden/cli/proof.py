# SPDX-License-Identifier: Apache-2.0
"""Proves on a card that it takes what a thermal guard sets, and puts back what was there.

Each actuator: say what is there, set a little less, read it back, put back what was there. The
originals are on disk before the first value that differs, in the thermal guard's own record: if
this process is killed, the guard's next start puts them back.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from gpuwarden.cli.proof_protocol import Step, Verdict
from gpuwarden.nvml.card import MILLIWATTS_PER_WATT
from gpuwarden.nvml.control import CardControl
from gpuwarden.nvml.errors import NvmlError
from gpuwarden.thermal.clock_lock import CLOCK_TOLERANCE_MHZ
from gpuwarden.thermal.originals import Here, Record, is_rounded
from gpuwarden.thermal.originals_store import OriginalsStore

SHARE = 0.95  # enough to be told from rounding, too little for anybody to notice
RESTORE_ATTEMPTS = 3
SETTLE_SECONDS = 3.0  # for the clock to follow its lock: a change takes a moment
LOOK_EVERY_SECONDS = 0.1
POWER_LIMIT: Literal["power-limit"] = "power-limit"
SM_CLOCK_LOCK: Literal["sm-clock-lock"] = "sm-clock-lock"

Actuator = Literal["power-limit", "sm-clock-lock"]


class StoppedError(Exception):
    """The proof must not go on; the text says why."""


class Originals:
    """The record of originals on disk, as long as something on the card differs from them."""

    def __init__(self, store: OriginalsStore, here: Here) -> None:
        self._store = store
        self._here = here
        found = store.load(here)
        self.notes = found.notes
        self._before = found.record
        self._sequence = found.record.sequence if found.record else 0

    @property
    def left_behind(self) -> bool:
        """Whether a thermal guard's settings are on the card already."""
        before = self._before
        return (
            before is not None
            and self._here.is_life_of(before)
            and not before.holds_nothing_of_ours
        )

    def keep(
        self,
        original_milliwatts: int | None,
        *,
        next_milliwatts: int | None = None,
        sm_lock_mhz: int | None = None,
    ) -> None:
        """Have the originals on disk before something else is set. Raises StoppedError."""
        self._sequence += 1
        problem = self._store.save(
            Record(
                uuid=self._here.uuid,
                boot_id=self._here.boot_id,
                driver_load=self._here.driver_load,
                sequence=self._sequence,
                original_milliwatts=original_milliwatts,
                next_milliwatts=next_milliwatts,
                sm_lock_mhz=sm_lock_mhz,
            )
        )
        if problem:
            self.drop()
            raise StoppedError(f"the originals can't be kept: {problem}")

    def drop(self) -> None:
        """Everything is as it was: the record of before comes back, if there was one."""
        if self._before is None:
            self._store.forget()
            return
        self._sequence += 1
        self._store.save(self._before.model_copy(update={"sequence": self._sequence}))


@dataclass
class Proof:
    """One proof on one card.

    :ivar hindrance: asked before each step: why it must not be done; empty while it may.
    :ivar interrupted: which signal wants the proof to end; empty while none does.
    :ivar steps: what was done so far.
    """

    control: CardControl
    originals: Originals
    hindrance: Callable[[], str]
    interrupted: Callable[[], str]
    steps: list[Step] = field(default_factory=list)
    restored: bool = True

    def power_limit(self, minimum_watts: float | None) -> int | None:
        """Prove the power limit; the original in milliwatts, None where the card has none.

        :raises StoppedError: it must not go on; what was there is there.
        """
        original = self._read_limit()
        if original is not None:
            self._prove_limit(original, minimum_watts)
        return original

    def _prove_limit(self, original: int, minimum_watts: float | None) -> None:
        self._go_on()
        if not self._set_limit("write what is there", original, lambda live: live == original):
            self.restored = self._has_limit(original)
            return
        if minimum_watts is None:
            self._skip(POWER_LIMIT, "5 % less", "the card does not say which limits it takes")
            return
        least = int(minimum_watts * MILLIWATTS_PER_WATT)
        target = max(least, int(original * SHARE) // MILLIWATTS_PER_WATT * MILLIWATTS_PER_WATT)
        if target >= original:
            text = f"no room: {_watts(original)} is the card's minimum"
            self._skip(POWER_LIMIT, "5 % less", text)
            return
        self._go_on()
        self.originals.keep(original, next_milliwatts=target)
        with self._restoring(lambda: self._restore_limit(original)):
            self._set_limit(
                "5 % less", target, lambda live: is_rounded(target, live) and live < original
            )

    def sm_clock_lock(self, baseline_mhz: int, original_milliwatts: int | None) -> None:
        """Prove the SM clock lock; ``baseline_mhz`` (0: none) is the lock that comes back.

        :param original_milliwatts: the card's power limit, for the record.
        :raises StoppedError: it must not go on; what was there is there.
        """
        try:
            clocks = self.control.sm_clocks()
            before_mhz = self.control.sm_clock_mhz()
        except NvmlError as error:
            self._add(SM_CLOCK_LOCK, "read", answered=str(error), verdict="bad")
            return
        if clocks is None:
            self._skip(SM_CLOCK_LOCK, "read", "the card does not list its SM clocks")
            return
        highest, lowest = clocks.highest_mhz, clocks.lowest_mhz
        self._add(SM_CLOCK_LOCK, "read", read_back=f"{before_mhz} MHz", answered="ok")
        target = clocks.at_most(highest * SHARE)
        if target >= highest:
            self._skip(SM_CLOCK_LOCK, "5 % below the highest", f"no room below {highest} MHz")
            return
        self._go_on()
        self.originals.keep(original_milliwatts, sm_lock_mhz=target)
        with self._restoring(lambda: self._restore_clock(lowest, baseline_mhz)):
            self._lock_clock(lowest, target, before_mhz)

    def _read_limit(self) -> int | None:
        self._go_on()
        started = time.perf_counter()
        try:
            live = self.control.power_limit_milliwatts()
        except NvmlError as error:
            self._add(POWER_LIMIT, "read", answered=str(error), verdict="bad", started=started)
            return None
        self._add(POWER_LIMIT, "read", answered="ok", read_back=_watts(live), started=started)
        return live

    def _set_limit(self, name: str, milliwatts: int, is_good: Callable[[int], bool]) -> bool:
        """Set, read back, judge; whether it was as it should be."""
        started = time.perf_counter()
        answered, live = "ok", None
        try:
            live = self.control.set_power_limit(milliwatts)
        except NvmlError as error:
            answered = str(error)
        good = live is not None and is_good(live)
        self._add(
            POWER_LIMIT,
            name,
            asked=_watts(milliwatts),
            answered=answered,
            read_back="" if live is None else _watts(live),
            verdict="good" if good else "bad",
            started=started,
        )
        return good

    def _has_limit(self, milliwatts: int) -> bool:
        try:
            return self.control.power_limit_milliwatts() == milliwatts
        except NvmlError:
            return False

    def _restore_limit(self, original: int) -> bool:
        return any(
            self._set_limit("put back", original, lambda live: live == original)
            for _ in range(RESTORE_ATTEMPTS)
        )

    def _lock_clock(self, lowest_mhz: int, target_mhz: int, before_mhz: int) -> None:
        started = time.perf_counter()
        name, asked = "5 % below the highest", f"{target_mhz} MHz"
        try:
            self.control.lock_sm_clocks(lowest_mhz, target_mhz)
            took = time.perf_counter() - started
            running = self._settled(target_mhz)
        except NvmlError as error:
            self._add(
                SM_CLOCK_LOCK,
                name,
                asked=asked,
                answered=str(error),
                verdict="bad",
                started=started,
            )
            return
        was_above = before_mhz > target_mhz + CLOCK_TOLERANCE_MHZ
        self._add(
            SM_CLOCK_LOCK,
            name,
            asked=asked,
            answered="ok",
            read_back=f"{running} MHz",
            verdict="good" if running <= target_mhz + CLOCK_TOLERANCE_MHZ else "bad",
            started=time.perf_counter() - took,
            note=""
            if was_above
            else "the card ran no faster before: shown is only that it takes the lock",
        )

    def _settled(self, target_mhz: int) -> int:
        """The clock once it heeds the lock, or after the time it may take. Raises NvmlError."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            running = self.control.sm_clock_mhz()
            heeds = running <= target_mhz + CLOCK_TOLERANCE_MHZ
            if heeds or self.interrupted() or time.monotonic() >= deadline:
                return running
            time.sleep(LOOK_EVERY_SECONDS)

    def _restore_clock(self, lowest_mhz: int, baseline_mhz: int) -> bool:
        for _ in range(RESTORE_ATTEMPTS):
            started = time.perf_counter()
            answered = "ok"
            try:
                if baseline_mhz:
                    self.control.lock_sm_clocks(lowest_mhz, baseline_mhz)
                else:
                    self.control.reset_sm_clocks()
            except NvmlError as error:
                answered = str(error)
            self._add(
                SM_CLOCK_LOCK,
                "put back",
                asked=f"{baseline_mhz} MHz" if baseline_mhz else "no lock",
                answered=answered,
                verdict="good" if answered == "ok" else "bad",
                started=started,
            )
            if answered == "ok":
                return True
        return False

    @contextmanager
    def _restoring(self, restore: Callable[[], bool]) -> Iterator[None]:
        """Whatever happens within, the original is put back; its record goes once it is there."""
        try:
            yield
        finally:
            if restore():
                self.originals.drop()
            else:
                self.restored = False

    def _go_on(self) -> None:
        reason = self.interrupted() or self.hindrance()
        if reason:
            raise StoppedError(reason)

    def _skip(self, actuator: Actuator, name: str, why: str) -> None:
        self._add(actuator, name, verdict="skipped", note=why)

    def _add(
        self,
        actuator: Actuator,
        name: str,
        *,
        asked: str = "",
        answered: str = "",
        read_back: str = "",
        verdict: Verdict = "good",
        started: float | None = None,
        note: str = "",
    ) -> None:
        took = None if started is None else round((time.perf_counter() - started) * 1000, 2)
        self.steps.append(
            Step(
                actuator=actuator,
                step=name,
                asked=asked,
                answered=answered,
                read_back=read_back,
                milliseconds=took,
                verdict=verdict,
                note=note,
            )
        )


def _watts(milliwatts: int) -> str:
    return f"{milliwatts / MILLIWATTS_PER_WATT:g} W"
