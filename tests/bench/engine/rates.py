# SPDX-License-Identifier: Apache-2.0
"""How fast something came, and when it came as fast again as before. Pure."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

WINDOW_SECONDS = 2.0
BACK_SHARE = 0.95  # of the rate before: callers who all began together come in waves


class Came:
    """What came when: answers, or tokens.

    :param events: (time, how much), in any order.
    """

    def __init__(self, events: Iterable[tuple[float, float]]) -> None:
        ordered = sorted(events)
        self.times = [at for at, _ in ordered]
        self._sums = [0.0, *accumulate(amount for _, amount in ordered)]

    def amount(self, begin: float, end: float) -> float:
        """How much from one time until before another."""
        return self._sums[bisect_left(self.times, end)] - self._sums[bisect_left(self.times, begin)]

    def usual_rate(self, begin: float, end: float, window: float = WINDOW_SECONDS) -> float:
        """The median of the rates over all windows between two times; 0 where none fits."""
        rates = []
        at = begin
        while at + window <= end:
            rates.append(self.amount(at, at + window) / window)
            at += window / 20
        return sorted(rates)[len(rates) // 2] if rates else 0.0

    def back_at(self, since: float, rate: float, window: float = WINDOW_SECONDS) -> float | None:
        """When the first window begins over which as much came as at that rate; None: never."""
        for at in self.times[bisect_left(self.times, since) :]:
            if rate and self.amount(at, at + window) >= BACK_SHARE * rate * window:
                return at
        return None
