# SPDX-License-Identifier: Apache-2.0
"""One look at a card: who the driver lists, what the kernel says of them, whom it doesn't list.

Everything here runs in the driver's thread and may hang there for ever.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gpuwarden.control.plan import planned_card
from gpuwarden.control.snapshot import SnapshotError
from gpuwarden.control.states import Card, Holder
from gpuwarden.nvml.errors import NvmlError
from gpuwarden.nvml.library import Library, Session
from gpuwarden.nvml.processes import CardUse, ProcessLister
from gpuwarden.scan.account import MIB, unexplained_bytes
from gpuwarden.scan.classify import holder, is_daemon_of_ours
from gpuwarden.scan.descriptors import openers
from gpuwarden.scan.evidence import Customs, Sight
from gpuwarden.scan.outcome import NotSeen, Seen
from gpuwarden.scan.proc import PROC
from gpuwarden.scan.processes import ProcessReader

log = logging.getLogger(__name__)

# All descriptors and maps of a machine: 0.1 s for 140 processes, so not at every look while nothing
# changes.
SEARCH_EVERY_SECONDS = 30.0
SAME_BYTES = 64 * MIB  # what programs take and give back all the time is no news
# Who has the card open without being listed, and needs no explanation.
_HARMLESS = frozenset({"ours", "monitoring"})


class Scanner:
    """Looks at the card with index ``gpu_index`` of the plan, found by its UUID."""

    def __init__(
        self,
        gpu_index: int,
        plan_file: Path,
        library: Library,
        reader: ProcessReader | None = None,
        proc: Path = PROC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpu_index = gpu_index
        self._plan_file = plan_file
        self._library = library
        self._reader = reader or ProcessReader(proc)
        self._proc = proc
        self._clock = clock
        self._card: Card | None = None
        self._session: Session | None = None
        self._lister: ProcessLister | None = None
        self._searched_at = -math.inf
        self._searched_for: object = None
        self._openers: list[int] = []

    def look(self, customs: Customs) -> Seen | NotSeen:
        """Look at the card once. Never raises for what a driver may do."""
        try:
            if self._lister is None:
                self._card = planned_card(self._plan_file, self._gpu_index)
                self._open(self._card)
            return self._look(customs)
        except SnapshotError as error:
            return NotSeen(self._uuid, str(error), unplanned=True)
        except NvmlError as error:
            self.close()  # an old handle is dead after a reload of the driver
            return NotSeen(self._uuid, str(error))

    def close(self) -> None:
        """Let go of card and driver; the next look opens them again."""
        self._lister = None
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except NvmlError as error:
                log.warning("GPU %d: closing the driver failed: %s", self._gpu_index, error)

    @property
    def _uuid(self) -> str:
        return self._card.uuid if self._card else ""

    def _open(self, card: Card) -> None:
        self._session = Session(self._library)
        self._lister = self._session.open_processes(card.uuid, card.pci_address)

    def _look(self, customs: Customs) -> Seen:
        assert self._lister is not None, "opened before"
        use = self._lister.look()
        self._reader.begin()
        listed = [
            holder(self._reader.read(each.pid), Sight(each.vram_bytes, each.kinds), customs)
            for each in use.processes
        ]
        problem = use.problem or self._reader.shortcoming()
        rest = None if problem else _unexplained(use)
        unlisted = self._unlisted(listed, rest, use, customs)
        if unlisted:
            rest = rest and 0
        found = (*listed, *unlisted)
        return Seen(self._uuid, found, use.used_bytes, use.total_bytes, rest, problem)

    def _unlisted(
        self, listed: list[Holder], rest: int | None, use: CardUse, customs: Customs
    ) -> list[Holder]:
        """Who else has the card open, where the lists don't say who holds all of its memory.

        Who made a context and has ended stays listed while somebody has inherited its descriptors.
        """
        if not rest and all(each.holder_class != "defunct" for each in listed):
            self._searched_at, self._openers = -math.inf, []
            return []
        known = {each.pid for each in use.processes}
        self._openers = self._search(known, (known.copy(), (rest or 0) // SAME_BYTES))
        if not self._openers:
            return []
        assert self._lister is not None, "opened before"
        known |= {each.pid for each in self._lister.look().processes}  # they came meanwhile
        found = [
            holder(evidence, Sight(mappings=True), customs)
            for pid in self._openers
            if pid not in known
            for evidence in (self._reader.read(pid),)
            if evidence.start_time_ticks and not is_daemon_of_ours(evidence.control_group)
        ]
        return [each for each in found if each.holder_class not in _HARMLESS]

    def _search(self, known: Iterable[int], riddle: object) -> list[int]:
        """Everybody, now and then; in between, whether those who were found are still there.

        :param riddle: what is to be explained: another one is looked into at once.
        """
        assert self._card is not None, "opened before"
        device_file = self._library.device_file(self._card.uuid, self._card.minor)
        if not device_file:
            return []
        pids = self._openers
        is_due = self._clock() - self._searched_at >= SEARCH_EVERY_SECONDS
        if is_due or riddle != self._searched_for:
            pids = self._reader.pids()
            self._searched_at, self._searched_for = self._clock(), riddle
        return openers(device_file, set(pids) - {*known, os.getpid()}, self._proc)


def _unexplained(use: CardUse) -> int | None:
    return unexplained_bytes(use.used_bytes, (each.vram_bytes for each in use.processes))
