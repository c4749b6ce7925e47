# SPDX-License-Identifier: Apache-2.0
"""Axes: from values to pixels, with round figures marked. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

_ROUND = (1.0, 2.0, 5.0, 10.0)
# Steps of a clock, in seconds: 1 s to 1 d.
_CLOCK_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 21600, 43200, 86400),
)
_DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps ``low`` to pixel ``at_low`` and ``high`` to ``at_high``; ``low`` < ``high``."""

    low: float
    high: float
    at_low: float
    at_high: float

    def __call__(self, value: float) -> float:
        """The pixel of a value; one off the axis is put on its end."""
        share = (value - self.low) / (self.high - self.low)
        return self.at_low + min(max(share, 0.0), 1.0) * (self.at_high - self.at_low)


def bounds(values: Sequence[float], step: float) -> tuple[float, float]:
    """Multiples of ``step`` round all values, with a little room."""
    low = math.floor((min(values) - step * 0.2) / step) * step
    high = math.ceil((max(values) + step * 0.2) / step) * step
    return low, max(high, low + step)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values from ``low`` to ``high``, about so many."""
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in _ROUND if m * magnitude >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def time_ticks(
    start: float, end: float, about: int, zone: tzinfo | None
) -> list[tuple[float, str]]:
    """Round moments between two, in seconds, and what to write at them.

    :param zone: the moments count from 1970 and are written as times of this zone; None: they
        count from the start of something and are written as how long after it.
    """
    rough = (end - start) / about
    step = next((s for s in _CLOCK_STEPS if s >= rough), 0.0)
    if not step:
        step = math.ceil(rough / _DAY_SECONDS) * _DAY_SECONDS
    shift = _offset_seconds(start, zone)
    first = math.ceil((start + shift) / step)
    last = math.floor((end + shift) / step)
    moments = [n * step - shift for n in range(first, last + 1)]
    return [(moment, _written(moment, step, zone)) for moment in moments]


def _offset_seconds(at_seconds: float, zone: tzinfo | None) -> float:
    if zone is None:
        return 0.0
    offset = datetime.fromtimestamp(at_seconds, UTC).astimezone(zone).utcoffset()
    return offset.total_seconds() if offset else 0.0


def _written(moment: float, step: float, zone: tzinfo | None) -> str:
    if zone is not None:
        then = datetime.fromtimestamp(moment, UTC).astimezone(zone)
        if step >= _DAY_SECONDS:
            return f"{then:%Y-%m-%d}"
        return f"{then:%H:%M:%S}" if step < 60 else f"{then:%H:%M}"
    if step >= 60:
        return f"{moment / 60:.0f}"
    return f"{moment // 60:.0f}:{moment % 60:02.0f}"
