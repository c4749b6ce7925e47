"""Reads one card, attempt by attempt: opens it when it can, closes it when it is lost.

Everything here runs in the driver's thread and may hang there for ever.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from gpuwarden.control.snapshot import SnapshotError, boot_id, read_snapshot
from gpuwarden.control.states import Card, PlanData
from gpuwarden.nvml.card import CardReader, Condition
from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NvmlError
from gpuwarden.nvml.library import Library, Session, choose_library
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.thermal.observation import (
    CardName,
    NotSeen,
    Observation,
    Seen,
    Trouble,
    implausible,
)

log = logging.getLogger(__name__)

# Limit, memory and health change slowly; the limit's call costs 84 us on an H200, a sample 8 us.
CONDITION_EVERY_SECONDS = 1.0
# A card that fails for that long is opened anew: after a reload of the driver old handles are dead.
OPEN_ANEW_AFTER_SECONDS = 10.0


class Sampler:
    """The card with index ``gpu_index`` of the plan, found by its UUID."""

    def __init__(
        self,
        gpu_index: int,
        plan_file: Path,
        library: Library | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpu_index = gpu_index
        self._plan_file = plan_file
        self._library = library or choose_library()
        self._clock = clock
        self._card = CardName()
        self._session: Session | None = None
        self._reader: CardReader | None = None
        self._limits = CardLimits()
        self._condition: Condition | None = None
        self._condition_read_at = 0.0
        self._answered_at = 0.0

    def attempt(self) -> Observation:
        """Look at the card once. Never raises for what a driver may do."""
        try:
            if self._reader is None:
                self._card = _named(self._planned_card())
                self._open()
            return self._look()
        except SnapshotError as error:
            return NotSeen(self._card, Trouble.NO_PLAN, str(error))
        except CardLostError as error:
            self.close()
            return NotSeen(self._card, Trouble.LOST, str(error))
        except DriverMissingError as error:
            self.close()
            return NotSeen(self._card, Trouble.NO_DRIVER, str(error))
        except NvmlError as error:
            if self._reader is None:
                self.close()
                return NotSeen(self._card, Trouble.NO_DRIVER, str(error))
            if self._clock() - self._answered_at >= OPEN_ANEW_AFTER_SECONDS:
                self.close()
            return NotSeen(self._card, Trouble.SENSOR, str(error))

    def close(self) -> None:
        """Let go of card and driver; the next attempt opens them again."""
        session, self._session, self._reader = self._session, None, None
        self._condition = None
        if session is not None:
            try:
                session.close()
            except NvmlError as error:
                log.warning("GPU %d: closing the driver failed: %s", self._gpu_index, error)

    def _planned_card(self) -> Card:
        snapshot = read_snapshot(self._plan_file, PlanData)
        if snapshot.boot_id != boot_id():
            raise SnapshotError(f"{self._plan_file}: of another boot")
        for card in snapshot.data.cards:
            if card.index == self._gpu_index:
                return card
        raise SnapshotError(f"{self._plan_file}: the plan has no GPU {self._gpu_index}")

    def _open(self) -> None:
        self._session = Session(self._library)
        reader = self._session.open_card(self._card.uuid, self._card.pci_address)
        self._limits = reader.limits()
        for note in self._limits.notes:
            log.warning("GPU %d: %s", self._gpu_index, note)
        self._reader = reader
        self._answered_at = self._clock()

    def _look(self) -> Observation:
        assert self._reader is not None, "opened before"
        sample = self._reader.sample()
        now = self._answered_at = self._clock()
        if self._condition is None or now - self._condition_read_at >= CONDITION_EVERY_SECONDS:
            self._condition = self._reader.condition()
            self._condition_read_at = now
        doubt = implausible(sample.temperature_celsius)
        if doubt:
            return NotSeen(self._card, Trouble.SENSOR, doubt)
        return Seen(self._card, sample, self._condition, self._limits)


def _named(card: Card) -> CardName:
    return CardName(card.uuid, card.name, card.pci_address, card.numa_node)
