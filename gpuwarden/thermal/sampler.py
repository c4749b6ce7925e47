# SPDX-License-Identifier: Apache-2.0
"""Reads one card, attempt by attempt: opens it when it can, closes it when it is lost.

Everything here runs in the driver's thread and may hang there for ever.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gpuwarden.control.plan import planned_card
from gpuwarden.control.snapshot import SnapshotError
from gpuwarden.control.states import Card
from gpuwarden.nvml.card import Condition, Sample
from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NvmlError
from gpuwarden.nvml.library import Library, OpenCard, Session, choose_library
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.ledger import Teller
from gpuwarden.thermal.observation import (
    CardName,
    NotSeen,
    Observation,
    Seen,
    Trouble,
    implausible,
    slows_for_heat,
)
from gpuwarden.thermal.plausibility import Jumps, MarginCheck
from gpuwarden.xids import describe_xid

log = logging.getLogger(__name__)

# Limit, memory, health and margin change slowly; the limit's call costs 84 us on an H200, the
# margin's half a millisecond, a sample 8 us.
CONDITION_EVERY_SECONDS = 1.0
# A card that fails for that long is opened anew: after a reload of the driver old handles are dead.
OPEN_ANEW_AFTER_SECONDS = 10.0
# A memory sensor that stops answering is trouble like the die's: for so long its last word stands.
MEMORY_STANDS_SECONDS = 3.0


class Sampler:
    """The card with index ``gpu_index`` of the plan, found by its UUID."""

    def __init__(
        self,
        gpu_index: int,
        plan_file: Path,
        library: Library | None = None,
        clock: Callable[[], float] = time.monotonic,
        teller: Teller | None = None,
    ) -> None:
        self._gpu_index = gpu_index
        self._plan_file = plan_file
        self._library = library or choose_library()
        self._clock = clock
        self._teller = teller or Teller(gpu_index)
        self.name = CardName()
        self.card: OpenCard | None = None
        self.limits = CardLimits()
        self.opened = 0
        self._session: Session | None = None
        self._condition: Condition | None = None
        self._condition_read_at = 0.0
        self._answered_at = 0.0
        self._answers = False  # since it was opened
        self._reasons: tuple[str, ...] = ()
        self._hotter_celsius: float | None = None
        self._die, self._memory, self._margin = Jumps(), Jumps(), MarginCheck()
        self._memory_read_at: float | None = None
        self._doubted = False

    def attempt(self) -> Observation:
        """Look at the card once. Never raises for what a driver may do."""
        try:
            if self.card is None:
                self.name = _named(planned_card(self._plan_file, self._gpu_index))
                self._open()
            return self._look()
        except SnapshotError as error:
            return NotSeen(self.name, Trouble.NO_PLAN, str(error))
        except CardLostError as error:
            self.close()
            return NotSeen(self.name, Trouble.LOST, str(error))
        except DriverMissingError as error:
            self.close()
            return NotSeen(self.name, Trouble.NO_DRIVER, str(error))
        except NvmlError as error:
            if self.card is None:
                self.close()
                return NotSeen(self.name, Trouble.NO_DRIVER, str(error))
            if self._clock() - self._answered_at >= OPEN_ANEW_AFTER_SECONDS:
                self.close()
            self._answers = False
            return NotSeen(self.name, Trouble.SENSOR, str(error))

    def close(self) -> None:
        """Let go of card and driver; the next attempt opens them again."""
        card, self.card = self.card, None
        session, self._session = self._session, None
        self._condition = None
        if card is not None:
            card.events.close()
        if session is not None:
            try:
                session.close()
            except NvmlError as error:
                log.warning("GPU %d: closing the driver failed: %s", self._gpu_index, error)

    def _open(self) -> None:
        self._session = Session(self._library)
        card = self._session.open_whole_card(self.name.uuid, self.name.pci_address)
        self._learn_limits(card)
        if self._teller.uuid != self.name.uuid:
            self._memory_read_at = None  # another card may have no such sensor
        self._teller.uuid = self.name.uuid
        self.card = card
        self.opened += 1
        self._answered_at, self._answers = self._clock(), True

    def _learn_limits(self, card: OpenCard) -> None:
        self.limits = card.reader.limits()
        for note in self.limits.notes:
            log.warning("GPU %d: %s", self._gpu_index, note)

    def _look(self) -> Observation:
        assert self.card is not None, "opened before"
        sample = self.card.reader.sample()
        now = self._clock()
        if not self._answers:
            self._answers = True
            self._learn_limits(self.card)  # without a temperature they were not whole
        is_due = now - self._condition_read_at >= CONDITION_EVERY_SECONDS
        if self._condition is None or is_due:
            self._condition = self.card.reader.condition()
            self._condition_read_at = now
            self._tell_xids(self.card)
            self._cross_check(sample, self._condition)
        doubt = implausible(sample.temperature_celsius) or self._doubt(sample, now)
        sample, lost = self._with_memory(sample, now)
        self._tell_doubt(doubt)
        if doubt or lost:
            if now - self._answered_at >= OPEN_ANEW_AFTER_SECONDS:
                self.close()
            return NotSeen(self.name, Trouble.SENSOR, doubt or lost)
        self._answered_at = now
        before, self._reasons = self._reasons, sample.clock_event_reasons
        slowed = slows_for_heat(before, self._reasons)
        return Seen(self.name, sample, self._condition, self.limits, self._hotter_celsius, slowed)

    def _doubt(self, sample: Sample, now: float) -> str:
        assert sample.temperature_celsius is not None, "implausible otherwise"
        full_watts = self.limits.power_maximum_watts
        return self._die.doubt(now, sample.temperature_celsius, sample.power_watts, full_watts)

    def _with_memory(self, sample: Sample, now: float) -> tuple[Sample, str]:
        """The sample with the memory's temperature as far as it can be believed, or why not.

        A doubted or missing one is replaced by the last for a while; a sensor that has answered
        before and stays silent is as bad as a die that can't be read.
        """
        celsius = sample.memory_temperature_celsius
        if celsius is not None and not implausible(celsius):
            full_watts = self.limits.power_maximum_watts
            if not self._memory.doubt(now, celsius, sample.power_watts, full_watts):
                self._memory_read_at = now
                return sample, ""
        elif self._memory_read_at is None:
            return replace(sample, memory_temperature_celsius=None), ""
        if self._memory_read_at is not None and now - self._memory_read_at > MEMORY_STANDS_SECONDS:
            return sample, "the memory's sensor no longer says anything that can be"
        return replace(sample, memory_temperature_celsius=self._memory.last_celsius), ""

    def _cross_check(self, sample: Sample, condition: Condition) -> None:
        if sample.temperature_celsius is None:
            return
        before = self._hotter_celsius
        self._hotter_celsius = self._margin.hotter_celsius(
            sample.temperature_celsius,
            sample.memory_temperature_celsius,
            condition.margin_celsius,
            self.limits.maximum_operating_celsius,
            self.limits.memory_maximum_celsius,
        )
        if self._hotter_celsius is not None and before is None:
            text = (
                f"its die's sensor says {sample.temperature_celsius:.0f} C, but by the margin to "
                f"its limit it has {self._hotter_celsius:.0f} C: the hotter one holds"
            )
            self._teller.tell(Event.SENSOR_IMPLAUSIBLE, text, logging.WARNING)

    def _tell_doubt(self, doubt: str) -> None:
        """Once for as long as it lasts."""
        if doubt and not self._doubted:
            self._teller.tell(Event.SENSOR_IMPLAUSIBLE, doubt, logging.WARNING, REASON=doubt)
        self._doubted = bool(doubt)

    def _tell_xids(self, card: OpenCard) -> None:
        for xid in card.events.drain():
            text = f"its driver reports {describe_xid(xid)}; see journalctl -k"
            self._teller.tell(Event.XID, text, logging.ERROR, XID=xid)


def _named(card: Card) -> CardName:
    return CardName(card.uuid, card.name, card.pci_address, card.numa_node)
