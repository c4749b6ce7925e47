# SPDX-License-Identifier: Apache-2.0
"""What the queue gives to the workers of a hot card."""

import itertools

import pytest

from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import CardLimits, Phase, Refusal, Refused, Seat, Withdraw
from tests.unit.queue_parts import LIMITS, enqueue, result, serving_seat, waiting_request


def test_a_card_of_which_nothing_is_known_computes_one_request_at_a_time() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    for _ in range(3):
        waiting_request(queue)
    seat = Seat(1, 1, 4)
    queue.attach(seat)
    queue.grant(seat, 8, 0.0)
    queue.set_state(seat, ready=True, draining=False, now=0.0)
    assert [len(batch.leases) for batch in seat.batches.values()] == [1, 1]


def test_an_engine_that_joins_requests_by_itself_holds_no_more_than_the_cards_limit() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, slots=True, heat=CardLimits(batch_limit=2))
    for _ in range(4):
        waiting_request(queue)
    assert seat.outstanding == 2
    queue.limit(1, CardLimits(batch_limit=3), 0.0)
    assert seat.outstanding == 3


def test_of_two_cards_that_do_nothing_the_cooler_one_works() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    serving_seat(queue, 1, heat=CardLimits(duty=0.5))
    serving_seat(queue, 2, heat=CardLimits(batch_limit=1))
    serving_seat(queue, 3)
    assert [waiting_request(queue)[0].seat for _ in range(3)] == [3, 2, 1]


def test_a_paused_card_finishes_what_it_runs_and_gives_back_the_rest() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    hot = serving_seat(queue, 1, max_batch=1)
    running, prepared = waiting_request(queue)[0], waiting_request(queue)[0]
    (_, behind) = hot.batches.values()
    (lease,) = behind.leases
    actions = queue.limit(1, CardLimits(paused=True), 0.0)
    assert actions == [Withdraw(1, prepared.number, lease)]
    assert (running.phase, prepared.phase) == (Phase.RUNNING, Phase.WAITING)
    serving_seat(queue, 2)
    assert prepared.seat == 2
    assert not prepared.suspect


def test_where_every_card_is_paused_nothing_more_is_accepted_and_the_heat_is_named() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    for key in (1, 2):
        serving_seat(queue, key)
    queue.limit(1, CardLimits(paused=True), 20.0)
    queue.admit(1, 20.0)
    queue.limit(2, CardLimits(paused=True), 20.0)
    with pytest.raises(Refused) as refused:
        queue.admit(1, 20.0)
    assert refused.value.reason is Refusal.TOO_HOT
    for seat in list(queue.seats.values()):  # stopped for the heat
        queue.detach(seat, 21.0)
    with pytest.raises(Refused) as refused:
        queue.admit(1, 40.0)
    assert refused.value.reason is Refusal.TOO_HOT


def test_a_batch_that_is_answered_in_parts_has_its_time_for_each_part() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    for _ in range(2):
        waiting_request(queue)
    seat = serving_seat(queue, 1)
    first, second = queue.requests.values()
    result(queue, seat, first.number, first.lease, returned=False, now=14.0, gpu_seconds=14.0)
    assert queue.expire(25.0) == []
    result(queue, seat, second.number, second.lease, returned=False, now=28.0, gpu_seconds=14.0)
    assert second.phase is Phase.ENDED


@pytest.mark.parametrize(("seconds", "longest_row"), [(0.001, 33), (0.3, 1)])
def test_workers_take_turns_and_quick_ones_keep_theirs_for_a_while(
    seconds: float, longest_row: int
) -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seats = {key: serving_seat(queue, key) for key in (1, 2)}
    row = []
    for now in range(400):
        request = queue.admit(1, float(now))
        enqueue(queue, request, float(now))
        assert request.seat is not None
        row.append(request.seat)
        seat = seats[request.seat]
        result(
            queue,
            seat,
            request.number,
            request.lease,
            returned=False,
            now=float(now),
            gpu_seconds=seconds,
        )
    known = row[2:]  # of the first ones nothing was known
    rows = [len(list(group)) for _, group in itertools.groupby(known)]
    assert max(rows) <= longest_row
    assert len(rows) >= 2
    assert (max(rows) > 1) == (longest_row > 1)
    assert abs(row.count(1) - row.count(2)) <= longest_row


def test_where_several_wait_even_quick_workers_take_turns() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    for key in (1, 2):
        seat = serving_seat(queue, key)
        queue.cards[key].batch_seconds = 0.001
        seat.last_used = key
    first, second = (queue.admit(1, 0.0) for _ in range(2))
    queue.join(first, 0.0)
    queue.join(second, 0.0)
    queue.serve([first, second], 0.0)
    assert (first.seat, second.seat) == (1, 2)  # who has rested longest first
