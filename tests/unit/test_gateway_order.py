# SPDX-License-Identifier: Apache-2.0
"""Single promises of the queue, one situation each."""

import pytest

from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.timers import SLOT_SECONDS
from gpuwarden.gateway.work import (
    Answered,
    CardLimits,
    End,
    Ending,
    Phase,
    Repeat,
    Request,
    Verdict,
    Withdraw,
)
from tests.unit.queue_parts import LIMITS, enqueue, result, serving_seat, waiting_request


def test_what_a_dead_worker_held_goes_back_to_its_old_place_oldest_first() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    first_seat = serving_seat(queue, 1, max_batch=1)
    held = [waiting_request(queue)[0] for _ in range(2)]
    later = waiting_request(queue)[0]
    queue.detach(first_seat, 0.0)
    second_seat = serving_seat(queue, 2)
    order: list[int] = []
    for _ in range(3):
        (batch,) = list(second_seat.batches.values())[:1]
        for lease, request in list(batch.leases.items()):
            assert request is not None
            order.append(request.number)
            result(queue, second_seat, request.number, lease, returned=False, now=0.0)
    assert order == [held[0].number, held[1].number, later.number]


def test_a_worker_with_slots_gets_each_request_at_once() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=3, slots=True)
    for expected in range(1, 6):
        waiting_request(queue)
        assert len(seat.batches) == expected


def test_what_waits_in_a_worker_for_a_slot_has_its_time_once_it_has_one() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1, slots=True)
    running, prefetched = (waiting_request(queue)[0] for _ in range(2))
    queue.joins(seat, running.number, running.lease, True, 1.0)
    result(queue, seat, running.number, running.lease, returned=False, now=19.0)
    queue.joins(seat, prefetched.number, prefetched.lease, True, 19.0)
    assert queue.expire(29.0) == []
    assert seat.serving


def test_a_worker_that_never_gives_a_slot_is_stuck_after_a_bounded_time() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=2, slots=True)
    job = queue.admit_background(1, 0, 0, 0.0)
    enqueue(queue, job, 0.0)
    assert queue.expire(39.9) == []
    assert queue.next_timer() == 40.0  # its preparation, and those that ran before
    assert End(job, Ending.EXECUTION_TIMEOUT) in queue.expire(40.0)
    assert not seat.serving


def test_who_waits_for_a_slot_behind_others_has_their_time_too() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1, slots=True)
    jobs = [queue.admit_background(1, 0, 0, 0.0) for _ in range(2)]
    for job in jobs:
        enqueue(queue, job, 0.0)
    queue.joins(seat, jobs[0].number, jobs[0].lease, True, 30.0)
    result(queue, seat, jobs[0].number, jobs[0].lease, returned=False, now=49.0)
    assert queue.expire(59.9) == []
    assert End(jobs[1], Ending.EXECUTION_TIMEOUT) in queue.expire(60.0)


def test_a_card_that_is_paused_takes_back_what_has_no_slot_yet() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1, slots=True)
    running, prefetched = (waiting_request(queue)[0] for _ in range(2))
    queue.joins(seat, running.number, running.lease, True, 1.0)
    lease = prefetched.lease
    actions = queue.limit(1, CardLimits(paused=True), 2.0)
    assert actions == [Withdraw(1, prefetched.number, lease)]
    assert (running.phase, prefetched.phase) == (Phase.RUNNING, Phase.WAITING)


def test_who_was_in_its_own_prefill_killed_the_worker_and_its_neighbours_did_not() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    for deaths in (1, 2, 3):
        seat = serving_seat(queue, deaths, max_batch=3, slots=True)
        if deaths == 1:
            poison, neighbour, waiting = (waiting_request(queue)[0] for _ in range(3))
        held = {one: one.lease for one in (neighbour, poison) if one.seat == seat.key}
        for one, lease in held.items():
            queue.joins(seat, one.number, lease, True, 0.0)
            queue.joins(seat, one.number, lease, one is poison, 0.0)
        assert poison.seat == seat.key
        actions = queue.detach(seat, 0.0)
        assert poison.solo_deaths == deaths
        assert (neighbour.suspect, waiting.suspect) == (False, False)
    assert End(poison, Ending.WORKER_CRASHED) in actions


def test_those_whose_worker_dies_in_a_step_of_several_are_first_tried_again_together() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    running: list[Request] = []
    for death in (1, 2):
        seat = serving_seat(queue, death, max_batch=3, slots=True)
        running = running or [waiting_request(queue)[0] for _ in range(3)]
        assert [one.seat for one in running] == [death] * 3
        queue.detach(seat, 0.0)
        assert [one.suspect for one in running] == [death == 2] * 3
        assert [one.solo_deaths for one in running] == [0] * 3
    serving_seat(queue, 3, max_batch=3, slots=True)
    assert [one.seat for one in running] == [3, None, None]


def test_a_stuck_worker_gives_back_what_it_has_not_begun() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    running = waiting_request(queue)[0]
    behind = waiting_request(queue)[0]
    actions = queue.expire(20.0)
    assert End(running, Ending.EXECUTION_TIMEOUT) in actions
    assert behind.phase is Phase.WAITING
    assert not seat.serving
    serving_seat(queue, 2)
    assert behind.seat == 2
    assert not behind.suspect


def test_what_has_been_streamed_in_part_is_not_begun_again_elsewhere() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=3, slots=True)
    running = waiting_request(queue)[0]
    silent, heard = (queue.admit(1, 6.0) for _ in range(2))
    queue.joins(seat, running.number, running.lease, True, 0.0)
    for one in (silent, heard):
        enqueue(queue, one, 6.0)
        queue.joins(seat, one.number, one.lease, True, 6.0)
    assert queue.piece(seat, heard.number, heard.lease, 6.0)
    late = queue.expire(20.0)
    assert late == [
        Withdraw(1, running.number, running.lease),
        End(running, Ending.EXECUTION_TIMEOUT),
    ]
    assert End(heard, Ending.BROKEN_OFF) in queue.expire(20.0 + SLOT_SECONDS)
    assert silent.phase is Phase.WAITING
    assert not seat.serving


def test_a_long_answer_in_a_slot_ends_without_its_neighbours() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=3, slots=True)
    long, short = waiting_request(queue)[0], waiting_request(queue)[0]
    for one in (long, short):
        queue.joins(seat, one.number, one.lease, True, 0.0 if one is long else 15.0)
    assert queue.expire(20.0) == [
        Withdraw(1, long.number, long.lease),
        End(long, Ending.EXECUTION_TIMEOUT),
    ]
    assert result(queue, seat, long.number, long.lease, returned=True, now=20.1) == (
        Verdict.DROPPED,
        [],
    )
    assert queue.expire(20.0 + SLOT_SECONDS) == []
    assert short.seat == 1
    assert seat.serving


def test_what_a_worker_only_prepared_while_another_ran_has_not_killed_it() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 0, max_batch=2, slots=True)
    poison, prepared = waiting_request(queue)[0], waiting_request(queue)[0]
    assert poison.seat == prepared.seat == 0
    for deaths in (1, 2, 3):
        for joining in (True, False):
            queue.joins(seat, poison.number, poison.lease, joining, 0.0)
        actions = queue.detach(seat, 0.0)
        seat = serving_seat(queue, deaths, max_batch=2, slots=True)
        assert (poison.solo_deaths, prepared.solo_deaths) == (deaths, 0)
        assert not prepared.suspect
    assert End(poison, Ending.WORKER_CRASHED) in actions


@pytest.mark.parametrize("why", ["its card is paused", "it is drained"])
def test_a_batch_that_a_worker_had_ready_before_the_older_one_stays_with_it(why: str) -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    serving_seat(queue, 2, max_batch=1)
    requests = [waiting_request(queue)[0] for _ in range(4)]
    large, small = (one for one in requests if one.seat == 1)
    assert queue.piece(seat, small.number, small.lease, 1.0)
    if why == "its card is paused":
        actions = queue.limit(1, CardLimits(paused=True), 2.0)
    else:
        actions = queue.drain(seat, True, 2.0)
    assert actions == []
    assert [one.seat for one in (large, small)] == [1, 1]


def test_a_batch_that_another_has_passed_has_its_time_from_then_on() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    large, small = (queue.admit_background(1, 0, 0, 0.0) for _ in range(2))
    for one in (large, small):
        enqueue(queue, one, 0.0)
    answer = Answered(small.number, small.lease, gpu_seconds=18.0)
    _, ran = queue.settle(seat, [answer])
    queue.go_on(seat, ran, 19.0)
    assert queue.expire(38.9) == []
    assert End(large, Ending.EXECUTION_TIMEOUT) in queue.expire(39.0)


def test_others_go_on_while_a_suspect_waits_for_an_idle_worker() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    doomed = serving_seat(queue, 1, max_batch=1)
    suspect = waiting_request(queue)[0]
    first, second = serving_seat(queue, 2, max_batch=1), serving_seat(queue, 3, max_batch=1)
    others = [waiting_request(queue)[0] for _ in range(2)]
    assert {one.seat for one in others} == {2, 3}
    queue.detach(doomed, 0.0)
    assert suspect.phase is Phase.WAITING
    ordinary = waiting_request(queue)[0]
    assert ordinary.phase is Phase.RUNNING
    reserved = first if ordinary.seat == 3 else second
    (batch,) = reserved.batches.values()
    ((lease, request),) = batch.leases.items()
    assert request is not None
    result(queue, reserved, request.number, lease, returned=False, now=0.0)
    assert suspect.seat == reserved.key
    assert not reserved.open


def test_a_job_that_killed_a_worker_waits_for_people_like_any_job() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    doomed = serving_seat(queue, 1, max_batch=1)
    job = queue.admit_background(1, 0, 0, 0.0)
    enqueue(queue, job, 0.0)
    assert job.seat == 1
    assert queue.detach(doomed, 0.0) == [Repeat(job)]
    enqueue(queue, job, 0.0)
    people = [waiting_request(queue)[0] for _ in range(3)]
    seat = serving_seat(queue, 2, max_batch=1)
    for person in people:
        assert job.phase is Phase.WAITING
        result(queue, seat, person.number, person.lease, returned=False, now=0.0)
    assert (job.suspect, job.seat) == (True, 2)


def test_while_people_never_stop_coming_a_job_that_killed_a_worker_has_its_turn_too() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    job = queue.admit_background(1, 0, 1, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    people = [waiting_request(queue)[0] for _ in range(4)]
    enqueue(queue, job, 0.0)
    answered = 0
    while job.phase is Phase.WAITING:
        person = people.pop(0)
        result(queue, seat, person.number, person.lease, returned=False, now=0.0)
        people.append(waiting_request(queue)[0])
        answered += 1
        assert answered < 25
    assert not seat.open


def test_a_job_that_killed_a_worker_does_not_go_to_the_last_one_that_is_drained() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1)
    queue.drain(seat, True, 0.0)
    job = queue.admit_background(1, 0, 1, 0.0)
    enqueue(queue, job, 0.0)
    assert job.phase is Phase.WAITING
    queue.drain(seat, False, 0.0)
    assert job.seat == 1


def test_what_comes_at_once_is_shared_out_over_idle_workers() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    for key in range(3):
        serving_seat(queue, key)
    requests = [queue.admit(1, 0.0) for _ in range(5)]
    for request in requests:
        queue.join(request, 0.0)
    queue.serve(requests, 0.0)
    assert sorted(len(seat.awaited) for seat in queue.seats.values()) == [1, 2, 2]
