# SPDX-License-Identifier: Apache-2.0
"""Batches: what is there at once, a moment of waiting where it pays, never more than fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.batching import Batching, BatchRules, company_until
from gpuwarden.gateway.lines import Bounds, Lines
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import CardLimits, Dispatch, Limits, Phase, Request, Weight
from tests.unit.queue_parts import enqueue, exceeds, serving_seat

ROOMY = Limits(count=100, total_bytes=1000, request_seconds=30.0, execution_seconds=20.0)
WINDOW = BatchRules(linger_seconds=0.5)


def lingering_queue(rules: BatchRules = WINDOW) -> RequestQueue:
    queue = RequestQueue(ROOMY, 0.0)
    queue.batching.rules = rules
    return queue


def come(queue: RequestQueue, now: float) -> tuple[Request, list[int]]:
    """A request, and how many went out with it, batch by batch."""
    request = queue.admit(1, now)
    actions = enqueue(queue, request, now)
    return request, [len(one.jobs) for one in actions if isinstance(one, Dispatch)]


def test_without_a_window_nobody_waits_for_company() -> None:
    queue = lingering_queue(BatchRules())
    serving_seat(queue, 1)
    assert [come(queue, 0.01 * number)[1] for number in range(2)] == [[1], [1]]
    assert queue.batching.until is None


def test_a_lone_request_does_not_wait_although_there_is_a_window() -> None:
    queue = lingering_queue()
    serving_seat(queue, 1)
    assert come(queue, 10.0)[1] == [1]


def test_where_company_is_likely_a_batch_fills_up_and_goes_out_full() -> None:
    queue = lingering_queue()
    for number in range(4):  # all before there is a worker
        come(queue, 0.01 * number)
    serving_seat(queue, 1)  # takes those four
    sizes = [come(queue, 0.1 + 0.01 * number)[1] for number in range(4)]
    assert sizes == [[], [], [], [4]]


def test_a_batch_that_does_not_fill_goes_out_when_its_oldest_has_waited_so_long() -> None:
    queue = lingering_queue()
    for number in range(4):
        come(queue, 0.01 * number)
    serving_seat(queue, 1)
    come(queue, 0.1)
    come(queue, 0.3)
    assert queue.next_timer() == pytest.approx(0.6)
    assert queue.expire(0.59) == []
    (dispatch,) = queue.expire(0.6)
    assert isinstance(dispatch, Dispatch)
    assert len(dispatch.jobs) == 2


def test_nobody_waits_for_company_while_another_worker_idles() -> None:
    queue = lingering_queue()
    serving_seat(queue, 1)
    serving_seat(queue, 2)
    serving_seat(queue, 3)
    assert [come(queue, 0.001 * number)[1] for number in range(3)] == [[1], [1], []]


def test_in_eco_nobody_waits_for_company() -> None:
    queue = lingering_queue()
    serving_seat(queue, 1, heat=CardLimits(batch_limit=1))
    assert [come(queue, 0.001 * number)[1] for number in range(2)] == [[1], [1]]


def test_a_card_that_grows_hot_ends_the_waiting() -> None:
    queue = lingering_queue()
    for number in range(4):
        come(queue, 0.01 * number)
    serving_seat(queue, 1)
    request, sizes = come(queue, 0.1)
    assert sizes == []
    (dispatch,) = queue.limit(1, CardLimits(batch_limit=1), 0.11)
    assert isinstance(dispatch, Dispatch)
    assert request.phase is Phase.RUNNING


def test_what_a_dead_worker_gave_back_does_not_wait_again() -> None:
    queue = lingering_queue()
    for number in range(4):
        come(queue, 0.01 * number)
    doomed = serving_seat(queue, 1)
    come(queue, 0.1)
    doomed.draining = True  # it leaves without blame
    queue.detach(doomed, 2.0)
    serving_seat(queue, 2)
    queue.expire(2.0)
    assert all(one.phase is Phase.RUNNING for one in queue.requests.values())


@given(
    queued_at=st.floats(0, 100),
    left=st.floats(0, 100),
    linger_seconds=st.floats(0, 10),
)
def test_waiting_for_company_leaves_half_of_the_time_for_the_answer(
    queued_at: float, left: float, linger_seconds: float
) -> None:
    request = Request(1, 0, queued_at + left, queued_at=queued_at)
    waited = company_until(request, linger_seconds) - queued_at
    assert -1e-9 <= waited <= min(linger_seconds, left / 2) + 1e-9


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=40), st.floats(0, 10))
def test_the_rate_is_that_of_the_last_arrivals_and_fades_in_silence(
    gaps: list[float], silence: float
) -> None:
    batching, now = Batching(), 0.0
    for gap in gaps:
        now += gap
        batching.arrived(now)
    kept = gaps[-15:] if len(gaps) > 15 else gaps[1:]
    expected = len(kept) / (sum(kept) + silence) if kept else 0.0
    assert batching.expected(1.0, now + silence) == pytest.approx(expected, rel=1e-6)


weights = st.builds(Weight, st.integers(0, 40), st.integers(0, 40))


@given(st.lists(weights, min_size=1, max_size=20), st.integers(1, 6), weights)
def test_batches_stay_within_the_budget_keep_the_order_and_lose_nobody(
    brought: list[Weight], size: int, budget: Weight
) -> None:
    lines = Lines()
    for number, weight in enumerate(brought):
        lines.join(Request(number, 0, 1.0, phase=Phase.WAITING, weight=weight))
    taken: list[Request] = []
    while not lines.is_empty:
        would_wait = lines.incomplete(Bounds(size, budget), with_background=False)
        batch = lines.take(Bounds(size, budget))
        assert 1 <= len(batch) <= size
        together = [one.weight for one in batch]
        assert len(batch) == 1 or not exceeds(together, budget)
        taken += batch
        is_last = len(taken) == len(brought)
        fits_more = is_last and len(batch) < size
        assert would_wait == (batch if fits_more else [])
        following = brought[len(taken)] if not is_last else None
        if following is not None and len(batch) < size:
            assert exceeds([*together, following], budget)
    assert [one.number for one in taken] == list(range(len(brought)))
