# SPDX-License-Identifier: Apache-2.0
"""One card's record in memory and on disk, and what is told about it."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from gpuwarden.systemd.events import Event
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.originals import Here, Record, Verdict, judge
from gpuwarden.thermal.originals_store import OriginalsStore

MILLIWATTS_PER_WATT = 1000
MOST_UNTOLD = 256  # nobody fetches: the last ones are what counts


class Teller:
    """Collects what is to be told about one card until somebody fetches it."""

    def __init__(self, gpu_index: int) -> None:
        self._gpu_index = gpu_index
        self.uuid = ""
        self._untold: deque[Happening] = deque(maxlen=MOST_UNTOLD)

    def tell(self, event: Event, text: str, level: int = logging.INFO, **fields: object) -> None:
        """Remember a happening; ``fields`` go to the journal beside the card's own."""
        known = {"GPU": str(self._gpu_index), "GPU_UUID": self.uuid}
        further = {name: str(value) for name, value in fields.items()}
        self._untold.append(
            Happening(event, f"GPU {self._gpu_index}: {text}", level, known | further)
        )

    def fetch(self) -> tuple[Happening, ...]:
        """What has happened since the last time, oldest first."""
        found: list[Happening] = []
        while self._untold:
            found.append(self._untold.popleft())
        return tuple(found)


class Ledger:
    """The record that the actuators go by. A disk that fails doesn't stop them: it is told.

    Not to cool because nothing can be saved would be the greater harm. The original stays in
    memory and in /run, which is enough for a guard that is killed; a copy on the disk alone would
    serve only a boot in which /run was emptied.
    """

    def __init__(self, store: OriginalsStore, teller: Teller, here: Callable[[], Here]) -> None:
        self._store = store
        self._teller = teller
        self._here = here
        self._loaded = False
        self._save_fails = False
        first = here()
        self.record = Record(uuid=first.uuid, boot_id=first.boot_id, driver_load=first.driver_load)

    def adopt(self, live_milliwatts: int | None) -> None:
        """Decide what the card's settings are, now that it is open, and save it.

        The first time by the stored copies, later by memory, which a full disk can't spoil.
        """
        here = self._here()
        damaged = False
        record: Record | None = self.record
        if not self._loaded:
            loaded = self._store.load(here)
            self._loaded = True
            record = loaded.record
            damaged = bool(loaded.notes)
            for note in loaded.notes:
                self._teller.tell(Event.THERMAL_ORIGINALS_SET_ASIDE, note, logging.WARNING)
        verdict = judge(record, live_milliwatts, here, damaged)
        if verdict.is_outdated:
            self._archive()
        self._tell_verdict(verdict)
        self.record = verdict.record
        self.save()

    def save(self, **changes: Any) -> None:
        """Change the record and have it on the disk, before the card is changed."""
        update = {**changes, "sequence": self.record.sequence + 1}
        self.record = self.record.model_copy(update=update)
        self._tell_saving(self._store.save(self.record))

    def keep_up(self) -> None:
        """Try again what could not be saved: the copy on the disk is out of date until then."""
        if self._save_fails:
            self._tell_saving(self._store.save(self.record))

    def close(self) -> None:
        """Nothing of ours is on the card any more: forget the record.

        It is saved as such first, so that a copy which outlives a crash in between claims nothing.
        """
        self.save()
        problem = self._store.forget()
        if problem:
            self._teller.tell(Event.THERMAL_ORIGINALS, problem, logging.WARNING)

    def _archive(self) -> None:
        problem = self._store.archive()
        text = "the settings of another boot or load of the driver are gone: what is set now counts"
        level = logging.WARNING if problem else logging.INFO
        parts = "; ".join(part for part in (text, problem) if part)
        self._teller.tell(Event.THERMAL_ORIGINALS, parts, level)

    def _tell_verdict(self, verdict: Verdict) -> None:
        original = verdict.record.original_milliwatts
        if original is None:
            return
        limit = watts_text(original)
        if verdict.continues:
            ours = watts_text(verdict.record.ours_milliwatts or 0)
            text = f"its limit of {ours} W is this guard's: {watts_text(original)} W comes back"
            self._teller.tell(Event.THERMAL_ORIGINALS, text, POWER_LIMIT_WATTS=limit)
        if verdict.replaced_milliwatts is not None:
            text = (
                f"its limit was changed from outside to {watts_text(original)} W (original "
                f"{watts_text(verdict.replaced_milliwatts)} W): that is the original now"
            )
            self._teller.tell(
                Event.THERMAL_OUTSIDE_CHANGE, text, logging.WARNING, POWER_LIMIT_WATTS=limit
            )
        if verdict.is_doubtful:
            text = (
                f"its original limit is not known: the {watts_text(original)} W that it has are "
                "the most it gets; if they are less than you want, set yours (nvidia-smi -pl), "
                "and take away a clock lock that is not yours (nvidia-smi -rgc)"
            )
            self._teller.tell(
                Event.THERMAL_ORIGINALS_SET_ASIDE, text, logging.ERROR, POWER_LIMIT_WATTS=limit
            )

    def _tell_saving(self, problem: str) -> None:
        if problem and not self._save_fails:
            text = f"{problem}; it is cooled all the same, its original settings are in memory"
            self._teller.tell(Event.THERMAL_ORIGINALS, text, logging.ERROR)
        elif self._save_fails and not problem:
            self._teller.tell(Event.THERMAL_ORIGINALS, "its original settings are on disk again")
        self._save_fails = bool(problem)


def watts_text(milliwatts: int) -> str:
    """Watts for a text: whole ones without a fraction."""
    return f"{milliwatts / MILLIWATTS_PER_WATT:g}"
