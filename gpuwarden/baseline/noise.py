# SPDX-License-Identifier: Apache-2.0
"""Whether two series of windows differ by more than each varies in itself. Pure.

Welch's test on the windows' values (B. L. Welch, Biometrika 34, 1947), with the number of windows
lowered by how much each one resembles the one before: neighbours in time are not independent.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

LEAST_VALUES = 4  # fewer say nothing of how much they vary
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of B less mean of A.

    :ivar low: and ``high``: where the true difference lies, with the confidence that was asked for.
    """

    mean_a: float
    mean_b: float
    low: float
    high: float

    @property
    def can_be_told(self) -> bool:
        """Whether it is more than noise."""
        return not self.low <= 0.0 <= self.high

    @property
    def noise(self) -> float:
        """The least difference that could have been told."""
        return (self.high - self.low) / 2


def difference(a: Sequence[float], b: Sequence[float], confidence: float) -> Difference | None:
    """The difference with its bounds; None of fewer than :data:`LEAST_VALUES` values in either."""
    if min(len(a), len(b)) < LEAST_VALUES:
        return None
    mean_a, mean_b = fmean(a), fmean(b)
    of_a, of_b = _variance_of_mean(a), _variance_of_mean(b)
    error = of_a + of_b
    if error <= TINY:
        return Difference(mean_a, mean_b, mean_b - mean_a, mean_b - mean_a)
    freedom = error**2 / (of_a**2 / (_independent(a) - 1) + of_b**2 / (_independent(b) - 1))
    width = student_quantile(confidence, freedom) * math.sqrt(error)
    between = mean_b - mean_a
    return Difference(mean_a, mean_b, between - width, between + width)


def _variance_of_mean(values: Sequence[float]) -> float:
    return variance(values) / _independent(values)


def _independent(values: Sequence[float]) -> float:
    """How many independent values say as much: n (1 - r) / (1 + r), at least 2."""
    resembles = _resemblance(values)
    return max(2.0, len(values) * (1 - resembles) / (1 + resembles))


def _resemblance(values: Sequence[float]) -> float:
    """Correlation of each value with the next, corrected for being short (by 1/n); 0 or more."""
    mean = fmean(values)
    apart = [value - mean for value in values]
    square = sum(each * each for each in apart)
    if square <= TINY:
        return 0.0
    found = sum(x * y for x, y in itertools.pairwise(apart)) / square
    return min(0.9, max(0.0, found + 1 / len(values)))


def student_quantile(confidence: float, freedom: float) -> float:
    """How many standard errors hold the mean with that confidence, on both sides.

    :param freedom: degrees of freedom, above 0.
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return high


def _within(t: float, freedom: float) -> float:
    """Probability that Student's t is between -t and t."""
    return 1 - _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    fraction = 1.0
    for m in range(80, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        fraction = 1 + odd / (1 + even / fraction)
    return math.exp(log_front) / (a * fraction)
