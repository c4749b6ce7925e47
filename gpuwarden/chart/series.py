# SPDX-License-Identifier: Apache-2.0
"""A card's past, as a drawing or a sparkline needs it. Pure."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median

from gpuwarden.values import ThermalState

# Outside of this nothing is a temperature, a power or a time; a drawing must survive it.
_LARGEST_VALUE = 1e6
_LARGEST_SECONDS = 1e11  # the year 5138

# What a moment that stands for several must not hide, the worst last.
_SEVERITY = (
    ThermalState.NORMAL,
    ThermalState.RELEASED,
    ThermalState.RECOVERING,
    ThermalState.ALERT,
    ThermalState.BLIND,
    ThermalState.LOST,
    ThermalState.CRITICAL,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a card's past: means, and the extremes within; None or NaN: unknown.

    :ivar at_seconds: its beginning, since 1970 or since the start of a simulation.
    """

    at_seconds: float
    state: ThermalState
    celsius: float | None = None
    celsius_lowest: float | None = None
    celsius_highest: float | None = None
    memory_celsius: float | None = None
    watts: float | None = None
    watts_highest: float | None = None
    limit_watts: float | None = None


def in_order(moments: Iterable[Moment]) -> list[Moment]:
    """The moments oldest first, what can't be a figure made unknown, extremes filled in."""
    known = [_sound(each) for each in moments if _is_time(each.at_seconds)]
    return sorted(known, key=lambda each: each.at_seconds)


def buckets(
    moments: Sequence[Moment], start_seconds: float, bucket_seconds: float, count: int
) -> list[Moment | None]:
    """``count`` equal stretches from ``start_seconds`` on; None where nothing is known.

    :param moments: as :func:`in_order` gives them.
    """
    members: list[list[Moment]] = [[] for _ in range(count)]
    for moment in moments:
        place = math.floor((moment.at_seconds - start_seconds) / bucket_seconds)
        if 0 <= place < count:
            members[place].append(moment)
    return [
        merged(group, start_seconds + n * bucket_seconds) if group else None
        for n, group in enumerate(members)
    ]


def merged(moments: Sequence[Moment], at_seconds: float) -> Moment:
    """One moment for several: means of the means, the outermost extremes, the worst state."""
    return Moment(
        at_seconds=at_seconds,
        state=max((each.state for each in moments), key=_SEVERITY.index),
        celsius=_over(fmean, [each.celsius for each in moments]),
        celsius_lowest=_over(min, [each.celsius_lowest for each in moments]),
        celsius_highest=_over(max, [each.celsius_highest for each in moments]),
        memory_celsius=_over(fmean, [each.memory_celsius for each in moments]),
        watts=_over(fmean, [each.watts for each in moments]),
        watts_highest=_over(max, [each.watts_highest for each in moments]),
        limit_watts=_over(min, [each.limit_watts for each in moments]),
    )


def thinned(moments: Sequence[Moment], at_most: int) -> list[Moment]:
    """No more than ``at_most`` moments that show the same; as they are where they are few.

    :param moments: as :func:`in_order` gives them.
    """
    if len(moments) <= at_most:
        return list(moments)
    start, end = moments[0].at_seconds, moments[-1].at_seconds
    width = (end - start) / (at_most - 1)
    if width <= 0:
        return [merged(moments, start)]
    return [each for each in buckets(moments, start, width, at_most) if each is not None]


def spacing_seconds(moments: Sequence[Moment]) -> float:
    """How far apart the moments usually are; 1 s where there are too few to say."""
    steps = [b.at_seconds - a.at_seconds for a, b in pairwise(moments)]
    forward = [step for step in steps if step > 0]
    return median(forward) if forward else 1.0


def _over(combine: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return combine(known) if known else None


def _sound(moment: Moment) -> Moment:
    celsius, watts = figure(moment.celsius), figure(moment.watts)
    lowest, highest = figure(moment.celsius_lowest), figure(moment.celsius_highest)
    watts_highest = figure(moment.watts_highest)
    return replace(
        moment,
        celsius=celsius,
        celsius_lowest=celsius if lowest is None else lowest,
        celsius_highest=celsius if highest is None else highest,
        memory_celsius=figure(moment.memory_celsius),
        watts=watts,
        watts_highest=watts if watts_highest is None else watts_highest,
        limit_watts=figure(moment.limit_watts),
    )


def figure(value: float | None) -> float | None:
    """The value if it can be drawn, else None."""
    if value is None or not math.isfinite(value) or abs(value) > _LARGEST_VALUE:
        return None
    return float(value)


def _is_time(seconds: float) -> bool:
    return math.isfinite(seconds) and 0 <= seconds <= _LARGEST_SECONDS
