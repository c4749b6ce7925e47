# SPDX-License-Identifier: Apache-2.0
"""Which changes are worth a write to the card. Pure.

A write costs the driver milliseconds and the journal a line; a sensor of whole degrees would ask
for one each second. Coarse changes go at once, fine ones seldom, and the more were written lately
the coarser a change must be.
"""

import math
from collections import deque

COARSE_SHARE = 0.025  # of the full scale; one degree is 1.8 % of a card's power at 55 C of rise
FINE_SHARE = 0.007
FINE_EVERY_SECONDS = 20.0
RISE_EVERY_SECONDS = 3.0  # the die's answer to the last rise must be seen first
REMEMBERED_SECONDS = 600.0
# With so many writes in ten minutes a change must be twice as coarse; of a hot card, half as many
# again. It keeps bursts under 400 writes an hour.
PATIENCE_WRITES = 27.0
HOT_PATIENCE_WRITES = 48.0


class Pen:
    """Remembers what was written when.

    :ivar lowered_at: when a setting was last made cooler, :ivar raised_at: when less cool.
    """

    def __init__(self) -> None:
        self.lowered_at = -math.inf
        self.raised_at = -math.inf
        self._writes: deque[float] = deque()

    def writes(
        self, now: float, old: float, new: float, scale: float, *, edge: bool, hot: bool
    ) -> bool:
        """Whether to write ``new`` over ``old``; a yes is remembered.

        :param scale: what the shares are of: the card's power, its highest clock.
        :param edge: the new value is the end of the range: nothing finer follows.
        :param hot: the card is warmer than it shall be.
        """
        step = abs(new - old)
        rested = now - self.raised_at
        # Several actuators may rise in one decision.
        if step == 0 or (new > old and 0 < rested < RISE_EVERY_SECONDS):
            return False
        if not edge and step < self.coarse_share(now, hot=hot and new < old) * scale:
            last = max(self.lowered_at, self.raised_at)
            if step < FINE_SHARE * scale or now - last < FINE_EVERY_SECONDS:
                return False
        self.note(now, lowered=new < old)
        return True

    def note(self, now: float, *, lowered: bool) -> None:
        """Remember a write."""
        if lowered:
            self.lowered_at = now
        else:
            self.raised_at = now
        self._writes.append(now)

    def coarse_share(self, now: float, *, hot: bool) -> float:
        """How large a change must be now to be written at once, as a share of the full scale."""
        while self._writes and self._writes[0] < now - REMEMBERED_SECONDS:
            self._writes.popleft()
        patience = HOT_PATIENCE_WRITES if hot else PATIENCE_WRITES
        return COARSE_SHARE * (1.0 + (len(self._writes) / patience) ** 2)
