# SPDX-License-Identifier: Apache-2.0
"""Figures of stored values, through their histogram: exact, and of little memory."""

from typing import TYPE_CHECKING, Any, Dict

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

PERCENTILES = (1, 5, 50, 95, 99)
CHUNK_SAMPLES = 1 << 20  # numpy.bincount widens what it counts to 8 bytes
LOWEST = -(1 << 15)  # of the signed 16-bit values
LEVELS = 3 << 15  # from there to the highest unsigned one


def statistics(samples: "NDArray[numpy.integer[Any]]") -> Dict[str, Any]:
    """min, max, mean and percentiles (interpolated linearly) of 8 or 16 bit values."""
    import numpy  # noqa: PLC0415 - only this engine needs it

    counts = _histogram(samples)
    levels = numpy.arange(LEVELS, dtype=numpy.int64) + LOWEST
    present = numpy.flatnonzero(counts)
    total = int(samples.size)
    cumulated = counts.cumsum()
    return {
        "min": int(levels[present[0]]),
        "max": int(levels[present[-1]]),
        "mean": int((levels * counts).sum()) / total,
        "percentiles": {str(p): _percentile(cumulated, total, p) for p in PERCENTILES},
    }


def _histogram(samples: "NDArray[numpy.integer[Any]]") -> "NDArray[numpy.int64]":
    import numpy  # noqa: PLC0415 - only this engine needs it

    flat = samples.reshape(-1)
    counts = numpy.zeros(LEVELS, dtype=numpy.int64)
    for start in range(0, flat.size, CHUNK_SAMPLES):
        chunk = flat[start : start + CHUNK_SAMPLES].astype(numpy.int64) - LOWEST
        counts += numpy.bincount(chunk, minlength=LEVELS)
    return counts


def _percentile(cumulated: "NDArray[numpy.int64]", total: int, percent: int) -> float:
    position = (total - 1) * percent / 100
    rank = int(position)
    lower, upper = (
        int(cumulated.searchsorted(min(place, total - 1), side="right")) + LOWEST
        for place in (rank, rank + 1)
    )
    return lower + (upper - lower) * (position - rank)
