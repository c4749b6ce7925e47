# SPDX-License-Identifier: Apache-2.0
"""The straight line of least squares through looks at something: no single look bends it much."""

from collections.abc import Sequence
from statistics import fmean


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """How much the line rises for each step of the places; 0 where they are all the same."""
    middle, mean = fmean(places), fmean(values)
    spread = sum((place - middle) ** 2 for place in places)
    both = sum((one - middle) * (value - mean) for one, value in zip(places, values, strict=True))
    return both / spread if spread else 0.0
