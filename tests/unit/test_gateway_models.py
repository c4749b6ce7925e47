# SPDX-License-Identifier: Apache-2.0
"""An accepted request gets a worker with the model that it asks for, or none."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import Action, Dispatch, End, Ending, Request, Seat, Withdraw
from tests.unit.queue_parts import LIMITS, enqueue, result, serving_seat

OLD, NEW = "gemma", "gemma-2"


def queue_of(*models: str) -> tuple[RequestQueue, list[Seat]]:
    queue = RequestQueue(LIMITS, 0.0)
    return queue, [worker(queue, key, model) for key, model in enumerate(models)]


def worker(queue: RequestQueue, key: int, model: str, **said: Any) -> Seat:
    return serving_seat(queue, key, model=model, **said)


def asking(queue: RequestQueue, model: str | None) -> tuple[Request, list[Action]]:
    request = queue.admit(1, 0.0)
    request.model = model
    return request, enqueue(queue, request, 0.0)


def given_out(actions: list[Action]) -> list[tuple[int, list[Request]]]:
    """Which worker got what."""
    return [
        (one.seat, [request for request, _ in one.jobs])
        for one in actions
        if isinstance(one, Dispatch)
    ]


def test_who_names_a_model_gets_its_worker_and_who_names_none_gets_any() -> None:
    queue, (_, new) = queue_of(OLD, NEW)
    request, actions = asking(queue, NEW)
    assert given_out(actions) == [(new.key, [request])]
    others = [asking(queue, None)[0] for _ in range(2)]
    assert {one.seat for one in others} == {0, 1}


def test_a_rolling_change_of_the_model_keeps_what_was_accepted_for_its_worker() -> None:
    queue, (first, second) = queue_of(OLD, OLD)
    running = [asking(queue, OLD)[0] for _ in range(4)]  # two in each worker, one by one
    waiting, actions = asking(queue, OLD)
    assert given_out(actions) == []
    queue.drain(first, True, 1.0)
    for lease in [lease for batch in first.batches.values() for lease in batch.leases]:
        number = next(one.number for one in running if one.lease == lease or one.seat is None)
        result(queue, first, number, lease, returned=False, now=2.0)
    assert queue.detach(first, 2.0) == []
    new = worker(queue, 7, NEW)
    while second.batches:
        (batch, *_) = second.batches.values()
        for lease, request in list(batch.leases.items()):
            assert request is not None
            result(queue, second, request.number, lease, returned=False, now=3.0)
    assert waiting.has_ended
    assert all(one.has_ended for one in running)
    assert not new.batches


def test_the_last_worker_with_a_model_finishes_what_waits_for_it_though_it_is_drained() -> None:
    queue, (old, new) = queue_of(OLD, NEW)
    running = [asking(queue, OLD)[0] for _ in range(2)]
    leases = [one.lease for one in running]
    waiting, _ = asking(queue, OLD)
    actions = queue.drain(old, True, 1.0)
    assert [one.lease for one in actions if isinstance(one, Withdraw)] == leases[1:]
    assert waiting.seat is None
    for one, lease in zip(running, leases, strict=True):
        result(queue, old, one.number, lease, returned=False, now=2.0)
    assert {waiting.seat, running[1].seat} == {old.key}
    assert not new.batches


def test_who_waits_for_a_model_that_nobody_runs_any_more_is_told_so_by_the_deadline() -> None:
    queue, (old,) = queue_of(OLD)
    for _ in range(2):
        asking(queue, None)
    waiting, _ = asking(queue, OLD)
    other, _ = asking(queue, None)
    queue.detach(old, 1.0)
    new = worker(queue, 7, NEW)
    assert waiting.seat is None
    actions = queue.expire(LIMITS.request_seconds)
    endings = {one.request: one.ending for one in actions if isinstance(one, End)}
    assert endings[waiting] is Ending.MODEL_GONE
    assert endings.get(other) is not Ending.MODEL_GONE
    assert waiting.number not in queue.requests
    assert new.key in queue.seats


def test_a_worker_with_the_model_that_comes_back_gets_what_waited_for_it() -> None:
    queue, (old,) = queue_of(OLD)
    requests = [asking(queue, OLD)[0] for _ in range(3)]
    queue.detach(old, 1.0)
    worker(queue, 7, NEW)
    assert {one.seat for one in requests} == {None}
    worker(queue, 8, OLD)
    assert 8 in {one.seat for one in requests}


@given(
    st.lists(st.sampled_from([OLD, NEW, None]), min_size=1, max_size=6),
    st.lists(st.sampled_from([OLD, NEW]), min_size=1, max_size=3),
)
def test_no_worker_ever_gets_what_it_would_refuse(
    asked: list[str | None], models: list[str]
) -> None:
    queue, seats = queue_of(*models)
    requests = [asking(queue, model)[0] for model in asked]
    for _ in asked:
        for seat in list(queue.seats.values()):
            for batch in list(seat.batches.values()):
                for lease, request in list(batch.leases.items()):
                    assert request is not None
                    assert request.model in (None, seat.model)
                    result(queue, seat, request.number, lease, returned=False, now=1.0)
    left = [one for one in requests if not one.has_ended]
    assert all(one.model not in models and one.model is not None for one in left)
    assert len(seats) == len(models)
