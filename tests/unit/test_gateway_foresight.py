# SPDX-License-Identifier: Apache-2.0
"""Which requests are not accepted because their answer would come after their deadline."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.foresight import Foresight, Standing, answer_seconds, answered_at
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import Limits, Phase, Request, Verdict
from tests.unit.queue_parts import enqueue, result, serving_seat

PATIENT = Limits(count=100, total_bytes=1000, request_seconds=30.0, execution_seconds=60.0)

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
    assert Foresight().is_in_time(idle, 1.0, 0.0)


def test_nothing_is_refused_on_what_was_never_measured() -> None:
    unmeasured = replace(BUSY, batch_seconds=None, service_seconds=None)
    assert Foresight().is_in_time(unmeasured, 1.0, 0.0)
    assert Foresight().is_in_time(replace(BUSY, places=0.0, running=0), 1.0, 0.0)


@given(
    waiting=st.integers(1, 10_000),
    running=st.integers(1, 100),
    batch_seconds=st.floats(0.001, 10),
    service_seconds=st.floats(0.001, 10),
    limit_seconds=st.floats(0.1, 1000),
    depth=st.integers(0, 100_000),
)
def test_while_nothing_is_looked_at_nobody_is_near_the_limit(
    waiting: int,
    running: int,
    batch_seconds: float,
    service_seconds: float,
    limit_seconds: float,
    depth: int,
) -> None:
    then = Standing(waiting, 0, running, 4.0, batch_seconds, service_seconds)
    foresight = Foresight()
    foresight.is_in_time(then, limit_seconds, 5.0)
    if foresight.is_far(depth, 5.09):
        seconds = answer_seconds(replace(then, waiting=depth))
        assert seconds <= 0.8 * limit_seconds / 2 * (1 + 1e-9)
    assert not foresight.is_far(depth, 5.11)


def test_far_from_the_limit_not_every_request_is_looked_at() -> None:
    foresight = Foresight()
    assert foresight.is_in_time(BUSY, 100.0, 5.0)
    assert foresight.is_far(19, 5.05)
    assert not foresight.is_far(19 * 3, 5.05)
    assert foresight.is_in_time(BUSY, 20.0, 6.0)
    assert not foresight.is_far(1, 6.0)


@given(waiting=st.integers(1, 10_000), more=st.integers(0, 10_000))
def test_whoever_comes_later_is_never_answered_sooner(waiting: int, more: int) -> None:
    first = answer_seconds(replace(BUSY, waiting=waiting))
    assert answer_seconds(replace(BUSY, waiting=waiting + more)) >= first


def test_a_worker_answers_after_what_it_does_and_a_batchs_time_with_some_to_spare() -> None:
    queue = RequestQueue(PATIENT, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    assert answered_at(seat, None, 5.0) == 5.0
    assert answered_at(seat, 2.0, 5.0) == 5.0 + 2.5
    come(queue, 5.0)
    assert answered_at(seat, 2.0, 6.0) == 6.0 + 3.75
    assert answered_at(seat, 2.0, 16.0) == 16.0 + 2.5  # it should have ended long ago


def come(queue: RequestQueue, now: float) -> Request:
    request = queue.admit(1, now)
    enqueue(queue, request, now)
    return request


def answered_share(measured: bool) -> float:
    """What part of a worker's time gives answers, when twice as many come as it can answer.

    The front door accepts them all here: so it is when the other worker has just died.
    """
    queue = RequestQueue(PATIENT, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    answered = 0
    for second in range(600):
        now = float(second)
        queue.expire(now)
        if second % 5 == 0:
            come(queue, now)
        batch = next(iter(seat.batches.values()), None)
        if batch is None or batch.started is None or now < batch.started + 10.0:
            continue
        ((lease, request),) = batch.leases.items()
        number = 0 if request is None else request.number
        verdict, _ = result(
            queue,
            seat,
            number,
            lease,
            returned=False,
            now=now,
            gpu_seconds=10.0 if measured else None,
        )
        answered += verdict is Verdict.DELIVER
    return answered / 60


def test_when_capacity_drops_those_who_are_too_late_do_not_make_the_others_late_too() -> None:
    assert answered_share(measured=False) < 0.2  # each is tried when its time is nearly over
    assert answered_share(measured=True) > 0.9


def test_a_suspect_that_has_no_time_left_keeps_no_worker_from_others() -> None:
    queue = RequestQueue(PATIENT, 0.0)
    doomed = serving_seat(queue, 1, max_batch=1)
    suspect = come(queue, 0.0)
    queue.cards[2].batch_seconds = 10.0
    queue.detach(doomed, 21.0)
    assert suspect.suspect
    other = come(queue, 22.0)
    serving_seat(queue, 2, max_batch=1, now=22.0)
    assert (suspect.phase, other.phase) == (Phase.WAITING, Phase.RUNNING)
