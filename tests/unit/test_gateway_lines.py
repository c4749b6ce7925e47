# SPDX-License-Identifier: Apache-2.0
"""People before jobs, and neither for ever."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.lines import PASSED_OVER, PEOPLE_BATCHES, Bounds, Lines
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import CardLimits, Kind, Phase, Repeat, Request, Withdraw
from tests.unit.queue_parts import LIMITS, enqueue, result, serving_seat, waiting_request


def request(number: int, *, background: bool = False, priority: int = 0) -> Request:
    return Request(number, 1, 30.0, background, priority, phase=Phase.WAITING)


def test_people_come_first_and_the_background_by_priority_then_age() -> None:
    lines = Lines()
    for number, priority in ((1, 0), (2, 5), (3, 0), (4, 5)):
        lines.join(request(number, background=True, priority=priority))
    lines.join(request(5))
    order = []
    while not lines.is_empty:
        batch = lines.take(Bounds(3))
        for one in batch:
            one.phase = Phase.RUNNING
        order.append([one.number for one in batch])
    assert order == [[5], [2, 4, 1], [3]]


def test_while_people_never_stop_coming_the_background_gets_a_sixteenth() -> None:
    lines = Lines()
    for number in range(1000):
        lines.join(request(number, background=number % 2 == 1))
    turns = []
    for _ in range(320):
        (one,) = lines.take(Bounds(1))
        one.phase = Phase.RUNNING
        turns.append(one.background)
    assert sum(turns) == 320 // (PEOPLE_BATCHES + 1)
    assert turns[:16] == [False] * 15 + [True]


def taken(lines: Lines, bounds: Bounds) -> list[list[int]]:
    """Everybody's number, batch by batch."""
    batches = []
    while not lines.is_empty:
        batch = lines.take(bounds)
        for one in batch:
            one.phase = Phase.RUNNING
        batches.append([one.number for one in batch])
    return batches


def test_those_of_one_kind_go_together_and_the_oldest_is_always_among_them() -> None:
    lines = Lines()
    for number, pixels in enumerate((0, 1, 0, 1, 2, 0)):
        lines.join(replace(request(number), kind=Kind(pixels=pixels)))
    assert taken(lines, Bounds(3)) == [[0, 2, 5], [1, 3], [4]]


def test_an_engine_that_takes_all_kinds_gets_them_as_they_come() -> None:
    lines = Lines()
    for number, kind in enumerate((Kind(), None, Kind(b"hot"), Kind())):
        lines.join(replace(request(number), kind=kind))
    assert taken(lines, Bounds(4, mixed=True)) == [[0, 1, 2, 3]]


def test_what_is_of_no_certain_kind_goes_alone() -> None:
    lines = Lines()
    for number in range(3):
        lines.join(replace(request(number), kind=None))
    assert taken(lines, Bounds(4)) == [[0], [1], [2]]


def test_only_so_many_are_passed_over_for_one_batch() -> None:
    lines = Lines()
    others = range(1, PASSED_OVER + 2)
    for number in (0, *others, PASSED_OVER + 2):
        lines.join(replace(request(number), kind=Kind(pixels=number in others)))
    assert taken(lines, Bounds(100)) == [[0], list(others), [PASSED_OVER + 2]]


kinds = st.none() | st.builds(Kind, pixels=st.integers(0, 2))


@given(st.lists(kinds, min_size=1, max_size=30), st.integers(1, 6))
def test_whatever_kinds_there_are_nobody_is_lost_and_every_batch_begins_with_the_oldest(
    brought: list[Kind | None], size: int
) -> None:
    lines = Lines()
    for number, kind in enumerate(brought):
        lines.join(replace(request(number), kind=kind))
    waiting = list(range(len(brought)))
    for batch in taken(lines, Bounds(size)):
        assert batch[0] == waiting[0]
        assert len(batch) == 1 or {brought[number] for number in batch} == {brought[batch[0]]}
        assert len(batch) == 1 or brought[batch[0]] is not None
        waiting = [number for number in waiting if number not in batch]
    assert not waiting


def test_who_can_not_be_answered_in_time_comes_after_those_who_can() -> None:
    lines = Lines()
    for number, deadline in enumerate((1.0, 2.0, 5.0, 6.0)):
        lines.join(replace(request(number), deadline=deadline))
    lines.set_late_apart(5.0)
    assert taken(lines, Bounds(1)) == [[2], [3], [1], [0]]


def test_who_would_be_in_time_after_all_has_its_old_place_again() -> None:
    lines = Lines()
    for number, deadline in enumerate((1.0, 2.0, 5.0)):
        lines.join(replace(request(number), deadline=deadline))
    lines.set_late_apart(9.0)  # a batch that took very long
    lines.join(replace(request(3), deadline=6.0))
    lines.set_late_apart(2.0)
    assert taken(lines, Bounds(1)) == [[1], [2], [3], [0]]


def test_who_is_late_goes_before_the_background_and_waits_for_no_company() -> None:
    lines = Lines()
    lines.join(request(1, background=True))
    lines.join(request(2))
    lines.set_late_apart(31.0)
    assert lines.has_people
    assert lines.incomplete(Bounds(4), with_background=True) == []
    assert taken(lines, Bounds(4)) == [[2], [1]]


def background(queue: RequestQueue, priority: int = 0) -> Request:
    one = queue.admit_background(1, priority, 0, 0.0)
    enqueue(queue, one, 0.0)
    return one


def test_a_person_gets_the_place_of_a_job_that_has_not_begun() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    running, prepared = background(queue), background(queue)
    assert (running.seat, prepared.seat) == (1, 1)
    person, actions = waiting_request(queue)
    assert actions == [Withdraw(1, prepared.number, prepared.lease)]
    result(queue, seat, prepared.number, prepared.lease, returned=True, now=0.0)
    assert (person.phase, prepared.phase) == (Phase.RUNNING, Phase.WAITING)
    assert running.phase is Phase.RUNNING


def test_the_last_worker_that_is_drained_finishes_for_people_and_jobs_wait() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    running, prepared, waiting = (background(queue) for _ in range(3))
    person, _ = waiting_request(queue)
    assert prepared.phase is Phase.HELD  # it made way
    (lease,) = [lease for batch in seat.not_begun for lease in batch.leases]
    actions = queue.drain(seat, True, 0.0)
    result(queue, seat, prepared.number, lease, returned=True, now=0.0)
    result(queue, seat, running.number, running.lease, returned=False, now=0.0)
    assert actions == []
    assert (seat.unanswered, person.phase) == (1, Phase.RUNNING)
    result(queue, seat, person.number, person.lease, returned=False, now=0.0)
    assert (seat.outstanding, prepared.phase, waiting.phase) == (0, Phase.WAITING, Phase.WAITING)
    queue.drain(seat, False, 0.0)
    assert (prepared.phase, waiting.phase) == (Phase.RUNNING, Phase.RUNNING)


def test_jobs_that_a_drained_worker_has_not_begun_are_taken_back() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    running, prepared = background(queue), background(queue)
    lease = prepared.lease
    assert queue.drain(seat, True, 0.0) == [Withdraw(1, prepared.number, lease)]
    assert (running.phase, prepared.phase) == (Phase.RUNNING, Phase.HELD)
    _, actions = result(queue, seat, prepared.number, lease, returned=True, now=0.0)
    assert (actions, prepared.phase) == ([], Phase.WAITING)


def test_a_job_that_had_begun_when_it_was_taken_back_is_noted_before_its_next_turn() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    prepared = [background(queue) for _ in range(2)][1]
    lease = prepared.lease
    queue.drain(seat, True, 0.0)
    other = serving_seat(queue, 2, max_batch=1)
    _, actions = result(queue, seat, prepared.number, lease, returned=False, now=0.0)
    assert (actions, prepared.phase, other.batches) == ([Repeat(prepared)], Phase.HELD, {})
    enqueue(queue, prepared, 0.0)
    assert prepared.seat == 2


def test_what_a_stuck_worker_does_not_give_back_counts_as_begun() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    seat = serving_seat(queue, 1, max_batch=1)
    _, prepared = background(queue), background(queue)
    queue.drain(seat, True, 0.0)
    assert Repeat(prepared) in queue.expire(20.0)


def test_jobs_have_no_deadline_and_no_share_in_what_people_may_wait_for() -> None:
    queue = RequestQueue(LIMITS, 0.0)
    serving_seat(queue, 1, max_batch=1)
    queue.limit(1, CardLimits(paused=True), 0.0)
    jobs = [background(queue) for _ in range(LIMITS.count + 1)]
    assert queue.expire(10_000.0) == []
    assert queue.depth == queue.held_bytes == 0
    queue.limit(1, CardLimits(), 10_000.0)
    for _ in range(LIMITS.count):
        enqueue(queue, queue.admit(1, 10_000.0), 10_000.0)
    assert all(one.phase is not Phase.ENDED for one in jobs)


def test_who_waits_alone_is_found_at_once_and_nobody_who_has_company() -> None:
    lines = Lines()
    assert lines.take_lone() is None
    first, second = request(1), request(2)
    lines.join(first)
    assert lines.take_lone() is first
    assert lines.is_empty
    for other in (
        second,
        request(3, background=True),
        replace(request(4), suspect=True),
        replace(request(5, background=True), suspect=True),
    ):
        lines = Lines()
        lines.join(first)
        lines.join(other)
        assert lines.take_lone() is None
    lines = Lines()
    lines.join(first)
    lines.set_late_apart(answered_at=first.deadline + 1)
    lines.join(second)
    assert lines.take_lone() is None  # one is late, and waits all the same
    first.phase = second.phase = Phase.ENDED
    lines = Lines()
    lines.join(first)
    assert lines.take_lone() is None
