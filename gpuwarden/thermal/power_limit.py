# SPDX-License-Identifier: Apache-2.0
"""The power limit of one card: set below the original, never above it, and put back.

Runs in the driver's thread. A card or driver that is gone raises; every other refusal becomes the
actuator's reason and is tried again after a minute.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NvmlError
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.ledger import MILLIWATTS_PER_WATT, Ledger, Teller, watts_text
from gpuwarden.thermal.originals import is_rounded

RETRY_SECONDS = 60.0  # a refused write costs little, but a journal full of them costs attention
# So many changes by somebody else within so long: another program wants the limit as well.
FIGHT_CHANGES, FIGHT_SECONDS = 3, 600.0
ATTEMPTS = 3  # somebody who changes the limit between our look and our write makes us look again
FLOAT_NOISE_WATTS = 1e-6  # 0.7 x 700 is 489.99..., and meant as 490
NAME = "power limit"


class LimitedCard(Protocol):
    """What of a card is needed here."""

    def power_limit_milliwatts(self) -> int:
        """The requested limit. Raises NvmlError."""

    def set_power_limit(self, milliwatts: int) -> int:
        """Request another; what the card has then. Raises NvmlError."""


class PowerLimit:
    """One card's limit.

    :param least_watts: the lowest that the card takes; None where it doesn't say.
    """

    def __init__(
        self,
        card: LimitedCard,
        ledger: Ledger,
        teller: Teller,
        least_watts: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._card = card
        self._ledger = ledger
        self._teller = teller
        self._clock = clock
        self._least = None if least_watts is None else round(least_watts * MILLIWATTS_PER_WATT)
        self._live: int | None = None
        self._asked: int | None = None
        self._retry_at = 0.0
        self._changes: deque[float] = deque(maxlen=FIGHT_CHANGES)
        self.reason = "not tried yet"
        self.writes = 0

    @property
    def original_watts(self) -> float | None:
        """The administrator's limit; None where the card has none."""
        original = self._ledger.record.original_milliwatts
        return None if original is None else original / MILLIWATTS_PER_WATT

    @property
    def least_watts(self) -> float:
        """The lowest limit that may be set."""
        return (self._least or 0) / MILLIWATTS_PER_WATT

    @property
    def live_watts(self) -> float | None:
        """What the card had when it was last asked."""
        return None if self._live is None else self._live / MILLIWATTS_PER_WATT

    def start(self) -> None:
        """Learn the original, save it, and see whether the limit can be set at all.

        The value that is there is written back: on laptops the getter works and the setter
        doesn't, and nothing but a write tells.

        :raises CardLostError: the card is gone. DriverMissingError: the driver is.
        """
        try:
            self._live = self._card.power_limit_milliwatts()
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError as error:
            self._ledger.adopt(None)
            self._refuse(str(error))
            return
        self._ledger.adopt(self._live)
        self._asked = self._live
        if self._least is None:
            self._refuse("the card does not say which limits it takes")
            return
        try:
            self._after_write(self._live, self._card.set_power_limit(self._live))
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError as error:
            self._refuse(str(error))

    def check(self) -> bool:
        """Notice a limit that somebody else has set; whether there is one.

        :raises CardLostError: the card is gone. DriverMissingError: the driver is.
        """
        live = self._read()
        return live is not None and self._notice(live)

    def set(self, watts: float | None) -> None:
        """Limit the card to so many watts or as little more as it takes; None: the original.

        :raises CardLostError: the card is gone. DriverMissingError: the driver is.
        """
        if self.reason:
            if self._clock() < self._retry_at:
                return
            self.start()
        for _ in range(ATTEMPTS):
            target = self._target(watts)
            if self.reason or target is None or target in (self._asked, self._live):
                return
            self._record_next(target)
            live = self._read()
            if live is None:
                self._refuse("the limit that it has can't be read")
                return
            if not self._notice(live):
                self._write(target)
                return

    def restore(self) -> bool:
        """Put the original back, whether or not writing has failed before, and read it back.

        A limit that somebody else has set since stays. Raises CardLostError, DriverMissingError.
        """
        record = self._ledger.record
        original = record.original_milliwatts
        if original is None or (record.ours_milliwatts is None and record.next_milliwatts is None):
            return True
        self.check()
        live = self._live
        if live == self._ledger.record.original_milliwatts:
            self._ledger.save(ours_milliwatts=None, next_milliwatts=None)
            return True
        if live is None:
            return False
        self.reason = ""
        self._write(original)
        return self._live == original

    def _notice(self, live: int) -> bool:
        """Whether somebody else has set the limit that the card has."""
        record = self._ledger.record
        if live == self._live:
            return False
        if self._live is None and (record.names(live) or live == record.original_milliwatts):
            self._live = live  # our own write, which could not be read back at the time
            return False
        self._take_over(live)
        return True

    def _target(self, watts: float | None) -> int | None:
        """What to ask for: whole watts, which boards round least, but the original as it was."""
        original = self._ledger.record.original_milliwatts
        if original is None or self._least is None:
            return None
        if watts is None or watts * MILLIWATTS_PER_WATT >= original:
            return original
        if math.isnan(watts) or watts <= self.least_watts:  # in doubt cool
            return min(self._least, original)
        return int(watts + FLOAT_NOISE_WATTS) * MILLIWATTS_PER_WATT

    def _record_next(self, target: int) -> None:
        is_original = target == self._ledger.record.original_milliwatts
        self._ledger.save(next_milliwatts=None if is_original else target)

    def _write(self, target: int) -> None:
        """Ask for a limit that is on record, and see what came of it."""
        before = self._live
        try:
            self._after_write(target, self._card.set_power_limit(target))
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError as error:
            # It may have taken effect all the same: what the card says now decides.
            live = self._read()
            if live is not None and live != before:
                self._after_write(target, live)
                return
            self._live = self._asked = live
            if live is not None:
                self._ledger.save(next_milliwatts=None)
            self._refuse(str(error))

    def _after_write(self, target: int, live: int) -> None:
        before, self._live = self._live, live
        original = self._ledger.record.original_milliwatts
        assert original is not None, "nothing is written before it is known"
        if target != before:
            self.writes += 1
        if live == before and not is_rounded(target, live):
            self._ledger.save(next_milliwatts=None)
            self._refuse(f"the card takes {watts_text(target)} W and keeps {watts_text(live)} W")
        elif not is_rounded(target, live):
            self._live = before
            self._take_over(live)
        elif live > original:
            self._undo_rounding_up(target, live, original)
        else:
            self._accept(target, live, before, original)

    def _accept(self, target: int, live: int, before: int | None, original: int) -> None:
        self._asked = target
        ours = None if live == original else live
        record = self._ledger.record
        if ours != record.ours_milliwatts or record.next_milliwatts is not None:
            self._ledger.save(ours_milliwatts=ours, next_milliwatts=None)
        if self.reason and self._retry_at:
            self._teller.tell(Event.THERMAL_WRITE, f"its {NAME} can be set again")
        self.reason, self._retry_at = "", 0.0
        if live != before:
            text = f"{NAME} {watts_text(before or 0)} -> {watts_text(live)} W"
            self._teller.tell(Event.THERMAL_WRITE, text, POWER_LIMIT_WATTS=watts_text(live))

    def _undo_rounding_up(self, target: int, live: int, original: int) -> None:
        """A board that makes more of it than the administrator allows isn't asked again."""
        self._live = self._card.set_power_limit(original)
        self._ledger.save(
            ours_milliwatts=None if self._live == original else self._live, next_milliwatts=None
        )
        self._refuse(
            f"the card makes {watts_text(live)} W of {watts_text(target)} W, "
            f"which is above the original {watts_text(original)} W"
        )

    def _take_over(self, live: int) -> None:
        """Somebody else's limit: the ceiling from now on, and what comes back."""
        before, self._live, self._asked = self._live, live, live
        old = "?" if before is None else watts_text(before)
        self._ledger.save(original_milliwatts=live, ours_milliwatts=None, next_milliwatts=None)
        self._teller.tell(
            Event.THERMAL_OUTSIDE_CHANGE,
            f"its {NAME} was changed from outside, {old} -> {watts_text(live)} W: that is the most "
            "it gets from now on, and what comes back",
            logging.WARNING,
            POWER_LIMIT_WATTS=watts_text(live),
        )
        self._changes.append(self._clock())
        is_full = len(self._changes) == FIGHT_CHANGES
        if is_full and self._changes[-1] - self._changes[0] <= FIGHT_SECONDS:
            self._changes.clear()
            self._teller.tell(
                Event.THERMAL_OUTSIDE_FIGHT,
                f"its {NAME} was changed from outside {FIGHT_CHANGES} times within "
                f"{FIGHT_SECONDS / 60:.0f} min: another program sets it too",
                logging.WARNING,
                POWER_LIMIT_WATTS=watts_text(live),
            )

    def _read(self) -> int | None:
        try:
            return self._card.power_limit_milliwatts()
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError:
            return None

    def _refuse(self, reason: str) -> None:
        if reason != self.reason:
            self._teller.tell(
                Event.THERMAL_REFUSED,
                f"its {NAME} can't be set: {reason}",
                logging.WARNING,
                REASON=reason,
            )
        self.reason = reason
        self._retry_at = self._clock() + RETRY_SECONDS
