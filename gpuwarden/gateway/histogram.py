# SPDX-License-Identifier: Apache-2.0
"""Counts by size, as Prometheus wants them, cheap to add to: several are fed with each request."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Buckets:
    """How many values fell where.

    :param bounds: the largest value of each bucket, in order; one more takes the rest.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """For each bound, as text, how many values are not over it; ``+Inf`` is the last."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))
