# SPDX-License-Identifier: Apache-2.0
"""What is done about a worker that holds too much of its share of the card."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.relief import (
    HOLD_LONGEST_SECONDS,
    HOLD_SECONDS,
    MARGIN,
    SETTLE_SECONDS,
    Decision,
    News,
    Reading,
    Relief,
    Step,
    decide,
)

EACH_SECONDS = 5.0
OVER, BETWEEN, BELOW = 0.9, 0.78, 0.5


class Story:
    """A worker that reports every five seconds."""

    def __init__(self, max_batch: int = 8) -> None:
        self.relief = Relief()
        self.now = 0.0
        self.max_batch = max_batch
        self.shortages = 0
        self.drops = 0
        self.news: list[News] = []

    def report(self, share: float | None) -> Decision:
        reading = Reading(share, 0.8, self.shortages, self.max_batch)
        decision = decide(self.relief, reading, self.now)
        self.relief = decision.relief
        self.drops += decision.drop_caches
        self.news += [decision.news] if decision.news else []
        self.now += EACH_SECONDS
        return decision

    def stay(self, share: float | None, seconds: float) -> "Story":
        for _ in range(int(seconds / EACH_SECONDS)):
            self.report(share)
        return self


def test_a_worker_below_its_threshold_is_left_alone() -> None:
    story = Story().stay(BELOW, 3600).stay(BETWEEN, 3600).stay(None, 3600)
    assert (story.relief.step, story.drops, story.news) == (Step.NONE, 0, [])


def test_the_remedies_come_in_order_each_after_the_one_before_did_not_help() -> None:
    story = Story().stay(BELOW, 60)
    seen = []
    for _ in range(20):
        relief = story.report(OVER).relief
        if (relief.step, relief.ceiling) not in seen:
            seen.append((relief.step, relief.ceiling))
    assert seen == [
        (Step.CACHES, None),
        (Step.BATCHES, 4),
        (Step.BATCHES, 2),
        (Step.BATCHES, 1),
        (Step.RECYCLE, 1),
    ]
    assert story.news == [News.REMEDY] * 5
    assert story.drops == 5


def test_where_one_request_runs_at_a_time_a_restart_follows_the_caches() -> None:
    story = Story(max_batch=1).stay(BELOW, 60).stay(OVER, 2 * SETTLE_SECONDS)
    assert (story.relief.step, story.relief.ceiling) == (Step.RECYCLE, None)


def test_a_step_has_time_to_take_effect() -> None:
    story = Story().stay(BELOW, 60)
    steps = [story.report(OVER).relief.step for _ in range(3)]
    assert steps == [Step.CACHES, Step.CACHES, Step.BATCHES]


def test_a_worker_that_was_over_from_its_start_is_told_of_once_and_never_restarted() -> None:
    story = Story().stay(OVER, 7200)
    assert (story.relief.step, story.relief.is_tight) == (Step.CACHES, True)
    assert story.news == [News.REMEDY, News.TIGHT]
    assert story.drops == 1


def test_what_was_done_is_taken_back_step_by_step_when_it_stays_well_below() -> None:
    story = Story().stay(BELOW, 60).stay(OVER, 30)
    assert story.relief.ceiling == 2
    ceilings = [story.report(BELOW).relief.ceiling for _ in range(60)]
    assert list(dict.fromkeys(ceilings)) == [2, 4, None]
    assert story.relief.step is Step.NONE
    assert story.news[-1] is News.RELIEVED


def test_just_below_the_threshold_nothing_is_taken_back() -> None:
    story = Story().stay(BELOW, 60).stay(OVER, 30).stay(0.8 - MARGIN / 2, 7200)
    assert story.relief.ceiling == 2


def test_a_pending_restart_is_called_off_when_the_memory_has_come_back() -> None:
    story = Story(max_batch=2).stay(BELOW, 60).stay(OVER, 60)
    steps = [story.relief.step, story.stay(BELOW, 2 * HOLD_SECONDS).relief.step]
    assert steps == [Step.RECYCLE, Step.BATCHES]


def test_a_batch_that_ran_out_of_memory_halves_the_next_ones_at_once() -> None:
    story = Story().stay(BELOW, 60)
    story.shortages = 1
    decision = story.report(BELOW)
    assert (decision.relief.step, decision.relief.ceiling) == (Step.BATCHES, 4)
    assert (decision.news, decision.drop_caches) == (News.SMALLER, False)


def test_a_batch_that_was_formed_before_that_halves_nothing_again() -> None:
    story = Story().stay(BELOW, 60)
    story.shortages = 1
    story.report(BELOW)
    story.shortages = 2
    assert story.report(BELOW).relief.ceiling == 4


def test_an_engine_that_says_nothing_of_its_memory_still_gets_smaller_batches() -> None:
    story = Story()
    story.shortages = 1
    assert story.report(None).relief.ceiling == 4
    assert story.stay(None, 2 * HOLD_SECONDS).relief.ceiling is None


@pytest.mark.parametrize("period_seconds", [20, 60, 120, 300])
def test_what_comes_back_again_and_again_does_not_flap(period_seconds: int) -> None:
    story = Story().stay(BELOW, 60)
    steps: list[int] = []
    for _ in range(int(6 * 3600 / (2 * period_seconds))):
        for share in (OVER, BELOW):
            for _ in range(int(period_seconds / EACH_SECONDS)):
                before = (story.relief.step, story.relief.ceiling)
                after = story.report(share).relief
                steps.append((after.step, after.ceiling) != before)
    assert sum(steps[-720:]) <= 12  # in the last hour
    assert story.relief.hold_seconds <= HOLD_LONGEST_SECONDS


shares = st.lists(st.sampled_from([OVER, BETWEEN, BELOW, None]), max_size=400)


@given(shares, st.integers(1, 64), st.lists(st.booleans(), max_size=400))
def test_whatever_is_told_a_worker_keeps_at_least_one_request_and_never_more_than_its_own(
    told: list[float | None], max_batch: int, runs_out: list[bool]
) -> None:
    story = Story(max_batch)
    for place, share in enumerate(told):
        story.shortages += place < len(runs_out) and runs_out[place]
        before = story.relief
        decision = story.report(share)
        ceiling = decision.relief.ceiling
        assert ceiling is None or 1 <= ceiling < max_batch
        assert decision.relief.step <= before.step + 2
        if decision.relief.step is Step.RECYCLE:
            assert decision.relief.was_below
        if before.step is decision.relief.step and before.ceiling == ceiling:
            assert decision.news in (None, News.TIGHT)
