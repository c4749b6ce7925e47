# SPDX-License-Identifier: Apache-2.0
"""A clock lock of one card, SM or memory: set, and taken away again.

No driver tells which lock is set. So a lock is on record before it is on the card, one that a
former life of the guard has left is taken away when it isn't wanted, and an administrator's own
lock (``nvidia-smi -lgc``) can be kept only where the configuration names it as the baseline. For
the same reason a lock isn't tried at the start: that would destroy the administrator's. It proves
itself when it is first needed, and afterwards by the clock that the card runs at.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from gpuwarden.nvml.errors import (
    CardLostError,
    DriverMissingError,
    NoPermissionError,
    NotSupportedError,
    NvmlError,
)
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.ledger import Ledger, Teller
from gpuwarden.thermal.power_limit import RETRY_SECONDS

# Checks in a row, a second apart, that find the clock above its lock: a change takes a moment.
DISREGARDED_AFTER_CHECKS = 3
CLOCK_TOLERANCE_MHZ = 30  # two steps of the finest clocks (15 MHz): what the card shows is rounded


@dataclass(frozen=True, slots=True)
class Lockable:
    """One clock of a card that can be locked.

    :ivar name: as it is told, ``SM clock``.
    :ivar field: the record's field that holds our lock.
    :ivar lock: keep the clock at or below so many MHz. Raises NvmlError.
    :ivar reset: take every lock away. Raises NvmlError.
    :ivar running_mhz: the clock at this moment. Raises NvmlError.
    :ivar baseline_mhz: the administrator's own lock, which comes back; None: none.
    """

    name: str
    field: str
    lock: Callable[[int], None]
    reset: Callable[[], None]
    running_mhz: Callable[[], int]
    baseline_mhz: int | None = None


class ClockLock:
    """The lock of one clock.

    :param missing: why this card can't have it, from what can be read; empty where nothing is known
        against it.
    """

    def __init__(
        self,
        clock: Lockable,
        ledger: Ledger,
        teller: Teller,
        now: Callable[[], float],
        missing: str = "",
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._teller = teller
        self._now = now
        self._missing = missing
        self._refusal = ""
        self._retry_at = 0.0
        self._above = 0
        # What a former life has set counts as set, but as nothing that could be left as it is.
        self._is_inherited = self._recorded is not None
        self._asked: int | None = None
        self.writes = 0

    @property
    def reason(self) -> str:
        """Why the clock can't be locked; empty where it can."""
        return self._missing or self._refusal

    @property
    def locked_mhz(self) -> int | None:
        """The highest clock that a lock of ours allows; None without one."""
        return self._recorded

    def set(self, mhz: int | None) -> None:
        """Lock the clock at so many MHz at most; None: as the administrator has it.

        :raises CardLostError: the card is gone. DriverMissingError: the driver is.
        """
        if mhz == self._asked and not self._is_inherited:
            return
        if mhz is not None and self._missing:
            return
        if self._refusal and self._now() < self._retry_at:
            return
        self._change(mhz)

    def check(self) -> None:
        """See whether the card heeds the lock. Raises CardLostError, DriverMissingError."""
        if self._asked is None or self._refusal:
            return
        try:
            running = self._clock.running_mhz()
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError:
            return
        is_above = running > self._asked + CLOCK_TOLERANCE_MHZ
        self._above = self._above + 1 if is_above else 0
        if self._above >= DISREGARDED_AFTER_CHECKS:
            self._above = 0
            text = f"locked at {self._asked} MHz, it runs at {running} MHz"
            self._asked = None
            self._is_inherited = True  # it may be set: write it again, or take it away
            self._refuse(text)

    def restore(self) -> bool:
        """Take our lock away; whether it is gone. Raises CardLostError, DriverMissingError."""
        if self._recorded is None:
            return True
        self._change(None)
        return self._recorded is None

    @property
    def _recorded(self) -> int | None:
        value: int | None = getattr(self._ledger.record, self._clock.field)
        return value

    def _change(self, mhz: int | None) -> None:
        before = self._recorded
        if mhz is not None:
            self._ledger.save(**{self._clock.field: mhz})
        try:
            self._write(mhz)
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError as error:
            if isinstance(error, NotSupportedError | NoPermissionError) and before is None:
                self._ledger.save(**{self._clock.field: None})
            else:
                self._is_inherited = True  # it may have taken effect all the same
            self._refuse(str(error))
            return
        self.writes += 1
        self._asked, self._is_inherited, self._above = mhz, False, 0
        if mhz is None:
            self._ledger.save(**{self._clock.field: None})
        self._tell(before, mhz)

    def _write(self, mhz: int | None) -> None:
        if mhz is not None:
            self._clock.lock(mhz)
        elif self._clock.baseline_mhz is not None:
            self._clock.lock(self._clock.baseline_mhz)
        else:
            self._clock.reset()

    def _tell(self, before: int | None, mhz: int | None) -> None:
        if self._refusal:
            self._teller.tell(Event.THERMAL_WRITE, f"its {self._clock.name} can be locked again")
        self._refusal = ""
        words = [_words(each, self._clock.baseline_mhz) for each in (before, mhz)]
        self._teller.tell(Event.THERMAL_WRITE, f"{self._clock.name} {words[0]} -> {words[1]}")

    def _refuse(self, reason: str) -> None:
        if reason != self._refusal:
            self._teller.tell(
                Event.THERMAL_REFUSED,
                f"its {self._clock.name} can't be locked: {reason}",
                logging.WARNING,
                REASON=reason,
            )
        self._refusal = reason
        self._retry_at = self._now() + RETRY_SECONDS


def _words(mhz: int | None, baseline_mhz: int | None) -> str:
    if mhz is not None:
        return f"at most {mhz} MHz"
    return "not locked" if baseline_mhz is None else f"at most {baseline_mhz} MHz (the baseline)"
