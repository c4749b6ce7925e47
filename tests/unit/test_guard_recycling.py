# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.guard.recycling import (
    FORGET_SECONDS,
    QUIET_SECONDS,
    Pause,
    after_restart,
    is_idle_moment,
    may_restart,
)
from gpuwarden.guard.status import SERVING
from gpuwarden.values import WorkerState
from tests.integration.bus_states import gateway, worker
from tests.machines import gateway_worker

READY, BUSY = worker(0), worker(1, state=WorkerState.BUSY)
IDLE = gateway(queue_depth=0, workers=[gateway_worker(0), gateway_worker(1)])


def test_an_idle_worker_is_restarted_while_another_serves() -> None:
    assert is_idle_moment(0, [READY, BUSY], IDLE, 0)


@pytest.mark.parametrize(
    "state",
    [
        None,
        IDLE.model_copy(update={"queue_depth": 1}),
        gateway(queue_depth=0, workers=[gateway_worker(0, outstanding=1)]),
        gateway(queue_depth=0, workers=[]),
    ],
    ids=["silent gateway", "somebody waits", "at work", "not connected"],
)
def test_a_moment_is_not_idle_while_anybody_could_miss_it(state: object) -> None:
    assert not is_idle_moment(0, [READY, BUSY], state, 1e9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [worker(1, state=state) for state in WorkerState if state not in SERVING]
    + [worker(1, operation="restarting: memory")],
)
def test_one_worker_at_a_time(other: object) -> None:
    assert not is_idle_moment(0, [READY, other], IDLE, 1e9)  # type: ignore[list-item]


@pytest.mark.parametrize(
    "others", [[], [worker(1, wanted=False, state=WorkerState.STOPPED)], [worker(1, held="heat")]]
)
def test_the_only_worker_that_serves_waits_until_nobody_has_come_for_a_minute(
    others: list[object],
) -> None:
    workers = [READY, *others]
    assert not is_idle_moment(0, workers, IDLE, QUIET_SECONDS - 1)  # type: ignore[arg-type]
    assert is_idle_moment(0, workers, IDLE, QUIET_SECONDS)  # type: ignore[arg-type]


# --- pauses


def test_what_one_restart_does_not_cure_is_tried_ever_more_rarely() -> None:
    pause, now, waits = Pause(), 0.0, []
    for _ in range(6):
        start = now
        while not may_restart(pause, now):
            now += 1.0
        waits.append(now - start)
        pause = after_restart(pause, now)
    assert waits == [0.0, 60.0, 300.0, 900.0, 1800.0, 1800.0]


def test_a_worker_that_was_well_for_an_hour_begins_with_no_pause_again() -> None:
    pause = after_restart(Pause(4, 0.0), FORGET_SECONDS)
    assert pause.restarts == 1
