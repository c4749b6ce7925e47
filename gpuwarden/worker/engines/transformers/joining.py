# SPDX-License-Identifier: Apache-2.0
"""What is done for those who join, between two steps: whoever streams waits for it meanwhile. Pure.

Pictures and prompts are work of their own. While somebody streams, between two steps either one
picture is looked at, or the prompts of a few who have been looked at are taken in: as many as are
known to take no longer than a stream may pause.
"""

from dataclasses import dataclass, field
from typing import Dict, Sequence, Tuple

from gpuwarden.worker.engines.transformers.shapes import Shapes, bucket

PAUSE_MILLISECONDS = 40.0  # a step and what is done before it; a stream's goal is 60 at most


@dataclass(frozen=True)
class Durations:
    """What was measured at load, in milliseconds.

    :ivar step: of all slots, with all of the cache.
    :ivar look: of one picture.
    :ivar prompts: of a group of so many prompts of so many tokens.
    """

    step: float = 0.0
    look: float = 0.0
    prompts: Dict[Tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Joiner:
    """One who waits to join.

    :ivar unseen: how many of its pictures are still to be looked at.
    """

    tokens: int
    pictures: int
    unseen: int


@dataclass(frozen=True)
class Work:
    """What is done next: so many pictures of the first are looked at, then so many taken in."""

    looks: int
    prompts: int


def next_work(
    waiting: Sequence[Joiner],
    shapes: Shapes,
    places: int,
    durations: Durations,
    *,
    streams: bool,
) -> Work:
    """What to do before the next step.

    :param waiting: the oldest first; those that have been looked at are the first ones.
    :param places: pictures of one group, at most.
    :param streams: whether anybody waits for the next step meanwhile.
    """
    if not waiting:
        return Work(0, 0)
    count = _group(waiting, shapes, places, durations, streams=streams)
    if not streams:
        return Work(sum(one.unseen for one in waiting[:count]), count)
    seen = 0
    while seen < count and not waiting[seen].unseen:
        seen += 1
    # Company that needs a single look is worth waiting for: together they take less than apart.
    if seen == count or (seen and waiting[seen].unseen > 1):
        return Work(0, seen)
    return Work(1, 0)


def _group(
    waiting: Sequence[Joiner], shapes: Shapes, places: int, durations: Durations, *, streams: bool
) -> int:
    """How many of the first are taken in together; one at least."""
    count = 1
    for size in range(2, min(len(waiting), shapes.groups[-1]) + 1):
        members = waiting[:size]
        if sum(one.pictures for one in members) > places:
            break
        tokens = bucket(max(one.tokens for one in members), shapes.prompts)
        takes = durations.prompts.get((bucket(size, shapes.groups), tokens), 0.0)
        if streams and durations.step + takes > PAUSE_MILLISECONDS:
            break
        count = size
    return count
