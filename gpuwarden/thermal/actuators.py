# SPDX-License-Identifier: Apache-2.0
"""What can be moved on one card: power limit, SM clock lock, memory clock lock.

Applies a policy's settings by their differences, the coolest means first, reads back what it wrote,
and puts everything back. All of it runs in the driver's thread.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gpuwarden.nvml.control import CardControl, ClockRange
from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NvmlError
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.nvml.vocabulary import Architecture
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.clock_lock import ClockLock, Lockable
from gpuwarden.thermal.decision import Authority, Settings
from gpuwarden.thermal.ledger import Ledger, Teller
from gpuwarden.thermal.power_limit import PowerLimit
from gpuwarden.thermal.privilege import lacks_administration

Answer = TypeVar("Answer")

POWER_LIMIT = "power-limit"
SM_CLOCK_LOCK = "sm-clock-lock"
MEMORY_CLOCK_LOCK = "memory-clock-lock"
BATCH_LIMIT = "batch-limit"
DISPATCH_DUTY = "dispatch-duty"
NAMES = (POWER_LIMIT, SM_CLOCK_LOCK, MEMORY_CLOCK_LOCK, BATCH_LIMIT, DISPATCH_DUTY)

NOT_OPEN = "the card is not open"
TURNED_OFF = "turned off in the configuration"


@dataclass(frozen=True, slots=True)
class Options:
    """What the configuration says about a card's actuators.

    :ivar memory_clock_lock: whether the memory clock may be locked. Off, for on Blackwell any lock
        was seen to slow the card by up to a third (open-gpu-kernel-modules 1265).
    :ivar sm_clock_baseline_mhz: the administrator's own lock of the SM clocks, which no driver
        shows; it comes back instead of none, and is the highest that is ever set.
    :ivar max_batch: requests computed together on a cool card.
    """

    memory_clock_lock: bool = False
    sm_clock_baseline_mhz: int | None = None
    max_batch: int = 1


class Actuators:
    """One card's means between opening it and losing it."""

    def __init__(
        self,
        card: CardControl,
        limits: CardLimits,
        ledger: Ledger,
        teller: Teller,
        options: Options,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Learn what can be moved, and save the originals.

        :raises CardLostError: the card is gone. DriverMissingError: the driver is.
        """
        self._card = card
        self._limits = limits
        self._ledger = ledger
        self._teller = teller
        self._options = options
        self._clocks: ClockRange | None = _or_none(card.sm_clocks)
        self._memory_clocks: tuple[int, ...] = _or_none(card.memory_clocks_mhz) or ()
        self._power = PowerLimit(card, ledger, teller, limits.power_minimum_watts, clock)
        self._power.start()
        self._sm = ClockLock(self._lockable_sm(), ledger, teller, clock, self._sm_missing())
        self._memory = ClockLock(
            self._lockable_memory(), ledger, teller, clock, self._memory_missing()
        )

    @property
    def writes(self) -> int:
        """How often a setting was changed."""
        return self._power.writes + self._sm.writes + self._memory.writes

    @property
    def sm_lock_mhz(self) -> int | None:
        """The highest SM clock that a lock of ours allows; None without one."""
        return self._sm.locked_mhz

    @property
    def original_watts(self) -> float | None:
        """The administrator's power limit, whether or not it can be set."""
        return self._power.original_watts

    def apply(self, settings: Settings) -> None:
        """Change what differs. Raises CardLostError, DriverMissingError."""
        self._power.set(settings.power_limit_watts)
        self._sm.set(self._sm_target(settings.sm_clock_mhz))
        wanted = settings.memory_clock_mhz if self._options.memory_clock_lock else None
        self._memory.set(self._memory_target(wanted))

    def check(self) -> None:
        """Notice what others have set and what the card doesn't heed, once a second.

        :raises CardLostError: the card is gone. DriverMissingError: the driver is.
        """
        self._ledger.keep_up()
        self._power.check()
        self._sm.check()
        self._memory.check()

    def authority(self) -> Authority:
        """What can be moved now."""
        clocks = self._clocks
        sm_range = None
        if clocks is not None and not self._sm.reason:
            sm_range = (clocks.lowest_mhz, self._sm_ceiling(clocks))
        memory = None
        if self._options.memory_clock_lock and not self._memory.reason:
            memory = self._memory_choice()
        return Authority(
            original_watts=None if self._power.reason else self._power.original_watts,
            minimum_watts=self._power.least_watts,
            sm_clocks_mhz=sm_range,
            memory_clock_mhz=memory,
            max_batch=self._options.max_batch,
            shutdown_celsius=self._limits.shutdown_celsius,
        )

    def reasons(self) -> dict[str, str]:
        """Why an actuator is missing, by name; empty where it is there."""
        return dict.fromkeys(NAMES, "") | {
            POWER_LIMIT: self._power.reason,
            SM_CLOCK_LOCK: self._sm.reason,
            MEMORY_CLOCK_LOCK: self._memory.reason,
        }

    def refusals(self) -> str:
        """Why what should be set can't be; empty where nothing is refused."""
        found = dict.fromkeys(self.reasons().values())
        return "; ".join(text for text in found if text and text != TURNED_OFF)

    def restore(self) -> bool:
        """Put back what the administrator had; whether all of it is back.

        The limit last: until then it holds what the clocks no longer do.

        :raises CardLostError: the card is gone. DriverMissingError: the driver is.
        """
        clocks_are_back = [lock.restore() for lock in (self._memory, self._sm)]
        limit_is_back = self._power.restore()
        if limit_is_back and all(clocks_are_back):
            self._ledger.close()
            watts = self._power.original_watts
            text = "its settings are as they were found"
            if watts is None:
                self._teller.tell(Event.THERMAL_RESTORED, text)
            else:
                text = f"{text}, limit {watts:g} W"
                self._teller.tell(Event.THERMAL_RESTORED, text, POWER_LIMIT_WATTS=f"{watts:g}")
            return True
        reasons = self.refusals()
        self._teller.tell(
            Event.THERMAL_REFUSED,
            f"its settings could not all be put back ({reasons}); {self._by_hand()}",
            logging.ERROR,
            REASON=reasons,
        )
        return False

    def keep(self) -> bool:
        """Leave a hot card as safe as it is, and say so; whether anything of ours is on it."""
        if self._ledger.record.holds_nothing_of_ours:
            return False
        self._teller.tell(
            Event.THERMAL_RESTORED,
            f"it is still hot: it keeps {self._power.live_watts or 0:g} W and its clock locks "
            f"until its guard runs again; {self._by_hand()}",
            logging.WARNING,
            POWER_LIMIT_WATTS=f"{self._power.live_watts or 0:g}",
        )
        return True

    def _by_hand(self) -> str:
        return "by hand: " + "; ".join(self._ledger.record.by_hand)

    def _sm_ceiling(self, clocks: ClockRange) -> int:
        baseline = self._options.sm_clock_baseline_mhz
        return clocks.highest_mhz if baseline is None else clocks.at_most(baseline)

    def _sm_target(self, mhz: int | None) -> int | None:
        if mhz is None or self._clocks is None:
            return None
        return min(self._clocks.at_most(mhz), self._sm_ceiling(self._clocks))

    def _memory_target(self, mhz: int | None) -> int | None:
        """The nearest clock that the card supports from below; its lowest if there is none."""
        if mhz is None or not self._memory_clocks:
            return None
        return next((each for each in self._memory_clocks if each <= mhz), self._memory_clocks[-1])

    def _memory_choice(self) -> int | None:
        """The second highest: the highest spares nothing, and the lower ones idle the card."""
        return self._memory_clocks[1] if len(self._memory_clocks) > 1 else None

    def _lockable_sm(self) -> Lockable:
        lowest = self._clocks.lowest_mhz if self._clocks else 0
        baseline = self._options.sm_clock_baseline_mhz
        return Lockable(
            name="SM clock",
            field="sm_lock_mhz",
            lock=lambda mhz: self._card.lock_sm_clocks(lowest, mhz),
            reset=self._card.reset_sm_clocks,
            running_mhz=self._card.sm_clock_mhz,
            baseline_mhz=self._clocks.at_most(baseline) if self._clocks and baseline else None,
        )

    def _lockable_memory(self) -> Lockable:
        return Lockable(
            name="memory clock",
            field="memory_lock_mhz",
            lock=self._card.lock_memory_clock,
            reset=self._card.reset_memory_clock,
            running_mhz=self._card.memory_clock_mhz,
        )

    def _sm_missing(self) -> str:
        if self._clocks is None:
            return "the card does not list its SM clocks"
        if not self._card.is_at_least(Architecture.VOLTA):
            return "the card is older than Volta: its SM clocks can't be locked"
        return lacks_administration()

    def _memory_missing(self) -> str:
        if not self._options.memory_clock_lock:
            return TURNED_OFF
        if not self._card.is_at_least(Architecture.AMPERE):
            return "the card is older than Ampere: its memory clock can't be locked"
        if self._memory_choice() is None:
            return "the card lists no lower memory clock"
        return lacks_administration()


def _or_none(read: Callable[[], Answer]) -> Answer | None:
    """``read()``, None where only this fails; a lost card or driver raises."""
    try:
        return read()
    except (CardLostError, DriverMissingError):
        raise
    except NvmlError:
        return None
