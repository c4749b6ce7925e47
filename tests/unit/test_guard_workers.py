# SPDX-License-Identifier: Apache-2.0
"""When workers are tried again that failed: by card."""

from typing import cast

import pytest

from gpuwarden.guard.holds import Holds
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.lives import Lives
from gpuwarden.guard.workers import Workers
from gpuwarden.systemd.units import Systemd
from gpuwarden.values import WorkerState
from tests.integration.bus_states import state, worker

FAILED, READY = WorkerState.FAILED, WorkerState.READY


@pytest.fixture
def workers() -> Workers:
    jobs = Jobs(lambda: None)
    return Workers(cast(Systemd, None), jobs, Holds(None), Lives(jobs, None))  # nothing is started


def look(workers: Workers, *states: WorkerState, cards: tuple[int, ...] = (0, 0)) -> list[float]:
    """The waits after a look at time 0 at workers in these states; 0 for none."""
    each = [worker(n, state=one, gpu=cards[n]) for n, one in enumerate(states)]
    workers.act(state(workers=each), 0.0)
    return [workers.intent(n).retry_at_seconds or 0.0 for n in range(len(states))]


def test_the_failures_of_a_cards_workers_count_together(workers: Workers) -> None:
    assert look(workers, FAILED, FAILED) == [30, 60]


def test_another_cards_do_not(workers: Workers) -> None:
    assert look(workers, FAILED, FAILED, cards=(0, 1)) == [30, 30]


def test_a_look_twice_at_the_same_failures_changes_nothing(workers: Workers) -> None:
    assert look(workers, FAILED, FAILED) == look(workers, FAILED, FAILED)


def test_a_card_whose_workers_serve_begins_anew(workers: Workers) -> None:
    look(workers, FAILED, FAILED)
    look(workers, READY, READY)
    assert look(workers, FAILED, READY) == [30, 0]


def test_what_is_under_way_is_left_alone(workers: Workers) -> None:
    workers.act(state(workers=[worker(0, state=FAILED)]), 0.0, under_way={0})
    assert workers.intent(0).retry_at_seconds is None
