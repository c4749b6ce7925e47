"""Which requests are not accepted because their answer would come after their deadline."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.foresight import Standing, answer_seconds, is_in_time

# Two workers with batches of two, one that runs and one prepared in each: 2 requests a second.
BUSY = Standing(
    waiting=19, receiving=0, running=8, places=4, batch_seconds=2.0, service_seconds=4.0
)


def test_the_answer_comes_when_all_before_it_have_gone_through_the_workers() -> None:
    assert answer_seconds(BUSY) == pytest.approx(28 / 2)


def test_what_is_slower_than_the_cards_alone_is_seen_by_how_long_answers_take() -> None:
    assert answer_seconds(replace(BUSY, service_seconds=8.0)) == pytest.approx(28)


def test_a_flood_is_foreseen_before_anything_of_it_was_answered() -> None:
    alone = replace(BUSY, service_seconds=2.0)
    assert answer_seconds(alone) == pytest.approx(28 / 2)


def test_a_card_that_may_work_half_the_time_takes_twice_as_long() -> None:
    assert answer_seconds(replace(BUSY, places=2)) == pytest.approx(28)


def test_one_that_a_worker_takes_at_once_is_never_too_late() -> None:
    idle = replace(BUSY, waiting=0, receiving=60, batch_seconds=100.0)
    assert is_in_time(idle, 1.0)


def test_nothing_is_refused_on_what_was_never_measured() -> None:
    assert is_in_time(replace(BUSY, batch_seconds=None, service_seconds=None), 1.0)
    assert is_in_time(replace(BUSY, places=0.0, running=0), 1.0)


@given(waiting=st.integers(1, 10_000), more=st.integers(0, 10_000))
def test_whoever_comes_later_is_never_answered_sooner(waiting: int, more: int) -> None:
    first = answer_seconds(replace(BUSY, waiting=waiting))
    assert answer_seconds(replace(BUSY, waiting=waiting + more)) >= first
