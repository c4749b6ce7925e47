# SPDX-License-Identifier: Apache-2.0
"""What is done about a worker that holds too much of its share of the card. Pure.

Over the warning threshold, one step after the other, each only when the one before did not help:
its caches are dropped between two batches; its batches are halved, and halved again; it is started
again at the next idle moment. What was done is taken back when it has been well below for a
while. That while doubles each time that it comes back too soon, so that nothing flaps.

A batch that ran out of memory halves the next ones at once. A worker that was over the threshold
from its start would be so again after a restart: its settings are too large, which is said, once.
"""

from dataclasses import dataclass, replace
from enum import Enum, IntEnum

SETTLE_SECONDS = 10.0  # a step's effect shows in two readings
HOLD_SECONDS = 60.0  # well below for so long, and a step is taken back
HOLD_LONGEST_SECONDS = 3600.0
RELAPSE_HOLDS = 5.0  # what comes back within so many holds came back too soon
MARGIN = 0.05  # below the threshold by so much is well below


class Step(IntEnum):
    """How far it has come."""

    NONE = 0
    CACHES = 1
    BATCHES = 2
    RECYCLE = 3


class News(Enum):
    """What is worth telling."""

    REMEDY = "remedy"  # it is over the threshold
    SMALLER = "smaller"  # it ran out of memory
    RELIEVED = "relieved"
    TIGHT = "tight"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a worker told.

    :ivar share: of what it may take of the card, that its allocator holds; None: unknown.
    :ivar shortages: batches of several that ran out of memory in its life.
    :ivar max_batch: requests that it takes together by its settings.
    """

    share: float | None
    threshold: float
    shortages: int = 0
    max_batch: int = 1


@dataclass(frozen=True, slots=True)
class Relief:
    """What is remembered of one life of a worker; times in seconds.

    :ivar since: of the last step, up or down; ``eased`` of the last one down.
    :ivar ceiling: requests that it may run together; None: as many as it takes.
    """

    step: Step = Step.NONE
    since: float = -HOLD_LONGEST_SECONDS
    below_since: float | None = None
    was_below: bool = False
    is_tight: bool = False
    ceiling: int | None = None
    shortages: int = 0
    hold_seconds: float = HOLD_SECONDS
    eased: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes of a reading."""

    relief: Relief
    drop_caches: bool = False
    news: News | None = None


def decide(relief: Relief, reading: Reading, now: float) -> Decision:
    """What is done after a reading."""
    ran_out = reading.shortages > relief.shortages
    relief = replace(relief, shortages=reading.shortages)
    # What was formed before the last step came through is no new trouble.
    if ran_out and now - relief.since >= SETTLE_SECONDS:
        smaller = _smaller(relief, reading, now)
        if smaller is not None:
            return Decision(smaller, news=News.SMALLER)  # the worker has dropped its caches itself
    over = reading.share is not None and reading.share >= reading.threshold
    relief = replace(
        relief,
        was_below=relief.was_below or not over,
        below_since=_below_since(relief, reading, now),
    )
    if over and now - relief.since >= SETTLE_SECONDS:
        return _up(relief, reading, now)
    below = relief.below_since
    if below is not None and relief.step and now - below >= relief.hold_seconds:
        return _down(relief, reading, now)
    return Decision(relief)


def _below_since(relief: Relief, reading: Reading, now: float) -> float | None:
    # An engine that says nothing of its memory can only run out of it: that ends as well.
    if reading.share is not None and reading.share >= reading.threshold - MARGIN:
        return None
    return now if relief.below_since is None else relief.below_since


def _up(relief: Relief, reading: Reading, now: float) -> Decision:
    if relief.step is Step.NONE:
        return Decision(_entered(relief, Step.CACHES, now), drop_caches=True, news=News.REMEDY)
    if not relief.was_below:
        news = None if relief.is_tight else News.TIGHT
        return Decision(replace(relief, is_tight=True), news=news)
    if relief.step is Step.RECYCLE:
        return Decision(relief)
    smaller = _smaller(relief, reading, now)
    if smaller is not None:
        return Decision(smaller, drop_caches=True, news=News.REMEDY)
    return Decision(_entered(relief, Step.RECYCLE, now), drop_caches=True, news=News.REMEDY)


def _smaller(relief: Relief, reading: Reading, now: float) -> Relief | None:
    """With batches of half the size; None where one request at a time is all there is."""
    size = min(relief.ceiling or reading.max_batch, reading.max_batch)
    if size == 1:
        return None
    step = max(relief.step, Step.BATCHES)
    return replace(_entered(relief, step, now), ceiling=size // 2)


def _entered(relief: Relief, step: Step, now: float) -> Relief:
    """One step on; one that comes too soon after the last relief makes the next wait longer."""
    hold = relief.hold_seconds
    if relief.eased is not None:
        relapsed = now - relief.eased < RELAPSE_HOLDS * hold
        hold = min(2 * hold, HOLD_LONGEST_SECONDS) if relapsed else HOLD_SECONDS
    return replace(relief, step=step, since=now, below_since=None, hold_seconds=hold, eased=None)


def _down(relief: Relief, reading: Reading, now: float) -> Decision:
    """Take a step back: the restart is called off, then batches double, then all is as it was."""
    eased = replace(relief, since=now, below_since=now, eased=now)
    if relief.step is Step.RECYCLE and relief.ceiling is not None:
        return Decision(replace(eased, step=Step.BATCHES), news=News.RELIEVED)
    if relief.ceiling is not None and 2 * relief.ceiling < reading.max_batch:
        return Decision(replace(eased, ceiling=2 * relief.ceiling))
    return Decision(replace(eased, step=Step.NONE, ceiling=None), news=News.RELIEVED)
