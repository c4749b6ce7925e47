# SPDX-License-Identifier: Apache-2.0
"""Why streams paused: each long gap laid beside what the worker did meanwhile. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tests.bench.engine.journal import Event

WORKERS_SHARE = 0.6  # of a gap: if the worker paused for less, the pause was behind it
COLLECTING_SECONDS = 0.010  # a collection that takes less is no cause
REACH_SECONDS = 0.150  # what is sent to the card before a pause may be what the pause waits for
LISTED = 40

Gap = tuple[float, float]  # when it ended, its seconds


def causes_of(gaps: Sequence[Gap], events: Sequence[Event]) -> dict[str, Any]:
    """How many gaps had which cause, the longest of each, and when the longest ones were."""
    told = sorted(began for began, _, kind, _ in events if kind == "told")
    others = sorted(event for event in events if event[2] in ("join", "gc", "caches"))
    found: dict[str, dict[str, float]] = {}
    listed: list[list[Any]] = []
    for gap in sorted(gaps, key=lambda one: -one[1]):
        cause = _cause(gap, told, others)
        entry = found.setdefault(cause, {"count": 0, "longest_milliseconds": 1000 * gap[1]})
        entry["count"] += 1
        if len(listed) < LISTED:
            listed.append([round(gap[0], 3), round(1000 * gap[1], 1), cause])
    return {"causes": found, "longest": listed}


def _cause(gap: Gap, told: list[float], others: list[Event]) -> str:
    end, seconds = gap
    pause_begin, pause_end = _pause(told, end - seconds, end)
    if pause_end - pause_begin < WORKERS_SHARE * seconds:
        return "behind the worker: front door or caller"
    place = bisect_left(others, (pause_begin - 1.0,))
    collecting, pictures, joins, caches = 0.0, 0, 0, False
    for began, took, kind, amount in others[place:]:
        if began > pause_end:
            break
        if kind == "gc" and began + took > pause_begin:
            collecting += took
        elif kind == "join" and began + took > pause_begin - REACH_SECONDS / 2:
            joins, pictures = joins + 1, pictures + amount
        elif kind == "caches" and began + took > pause_begin:
            caches = True
    if collecting > COLLECTING_SECONDS:
        return "garbage collection"
    if caches:
        return "caches dropped"
    return f"joining: {joins} groups, {pictures} pictures" if joins else "worker: none of these"


def _pause(told: list[float], begin: float, end: float) -> Gap:
    """The longest time within a gap in which the worker told nobody anything."""
    first = bisect_left(told, begin - REACH_SECONDS)
    times = [at for at in told[first : bisect_left(told, end) + 1] if at <= end]
    edges = [times[0] if times else begin, *times, end]
    pairs = list(pairwise(edges))
    return max(pairs, key=lambda pair: min(pair[1], end) - max(pair[0], begin - REACH_SECONDS))
