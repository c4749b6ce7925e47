# SPDX-License-Identifier: Apache-2.0
"""When an order to workers is done, and when it will not come about."""

import pytest

from gpuwarden.cli.progress import (
    GRACE_SECONDS,
    STALL_SECONDS,
    Progress,
    begun,
    judge,
    told,
)
from gpuwarden.control.states import GatewayWorker, GuardData, WorkerStatus
from gpuwarden.values import WorkerState
from tests.unit.cli.samples import gateway, guard, worker

LATER = GRACE_SECONDS + 1


def after(
    action: str, before: WorkerStatus, *looks: WorkerStatus, drained: bool = False
) -> Progress:
    """The order after these looks, a second apart."""
    progress = begun(action, before.number, guard(workers=[before]), 0.0)
    for second, look in enumerate(looks, start=1):
        progress = judge(progress, data(look, drained=drained), second)
    return progress


def data(*workers: WorkerStatus, drained: bool = False, outstanding: int = 0) -> GuardData:
    told = GatewayWorker(
        number=0, pid=1000, state="ready", outstanding=outstanding, requests=1, failures=0
    )
    return guard(
        workers=list(workers),
        gateway=gateway(drained=[0] if drained else [], workers=[told]),
    )


def test_a_start_is_done_when_the_worker_serves() -> None:
    down = worker(state=WorkerState.STOPPED, main_pid=0)
    assert not after("start", down, down).ended
    assert not after("start", down, worker(state=WorkerState.LOADING)).ended
    done = after("start", down, worker(state=WorkerState.LOADING), worker())
    assert done.done
    assert done.outcome == ["worker 0 is ready (PID 1000)"]


def test_a_stop_is_done_when_the_worker_is_down() -> None:
    draining = worker(state=WorkerState.DRAINING, operation="stopping")
    assert not after("stop", worker(), draining).ended
    done = after("stop", worker(), draining, worker(state=WorkerState.STOPPED, main_pid=0))
    assert done.outcome == ["worker 0 is stopped"]


def test_a_restart_is_done_when_another_process_serves() -> None:
    assert not after("restart", worker(), worker()).ended
    assert after("restart", worker(), worker(main_pid=2000)).done


def test_a_drain_is_done_when_the_worker_has_finished() -> None:
    progress = begun("drain", 0, data(worker()), 0.0)
    assert not judge(progress, data(worker()), 1.0).ended
    assert not judge(progress, data(worker(), drained=True, outstanding=2), 1.0).ended
    done = judge(
        progress, data(worker(state=WorkerState.DRAINING, operation="drained"), drained=True), 1.0
    )
    assert done.outcome == ["worker 0 is drained: it gets no work until it is started"]


def test_a_drained_worker_is_started_when_it_gets_work_again() -> None:
    assert not after("start", worker(), worker(), drained=True).ended
    assert after("start", worker(), worker()).done


def test_a_rolling_restart_is_done_when_every_process_is_another() -> None:
    progress = begun("rolling-restart", None, data(worker(0), worker(1)), 0.0)
    half = judge(progress, data(worker(0, main_pid=7), worker(1)), 1.0)
    assert not half.ended
    assert told(progress, half) == ["worker 0: ready"]
    assert judge(half, data(worker(0, main_pid=7), worker(1, main_pid=8)), 2.0).done


@pytest.mark.parametrize("action", ["start", "restart"])
def test_a_worker_that_fails_ends_the_waiting(action: str) -> None:
    down = worker(state=WorkerState.STOPPED, main_pid=0)
    failed = worker(state=WorkerState.FAILED, main_pid=0, last_error="load(): x")
    assert after(action, down, failed).failed == "worker 0 failed: load(): x"


def test_one_that_had_failed_before_gets_time_to_start() -> None:
    failed = worker(state=WorkerState.FAILED, main_pid=0, last_error="load(): x")
    assert not after("start", failed, failed).ended
    progress = begun("start", 0, data(failed), 0.0)
    assert judge(progress, data(failed), LATER).failed == "worker 0 failed: load(): x"


def test_a_worker_that_is_held_back_is_not_waited_for() -> None:
    held = worker(state=WorkerState.STOPPED, main_pid=0, held="heat", reason="GPU 0 is too hot")
    progress = begun("start", 0, data(held), 0.0)
    assert judge(progress, data(held), LATER).failed == (
        "worker 0 is not started: GPU 0 is too hot"
    )


def test_what_is_under_way_is_waited_for_however_long_it_takes() -> None:
    loading = worker(state=WorkerState.LOADING)
    progress = begun("start", 0, data(loading), 0.0)
    assert not judge(progress, data(loading), 10 * STALL_SECONDS).ended
    stopping = worker(operation="stopping")
    assert not judge(begun("stop", 0, data(worker()), 0.0), data(stopping), 1e4).ended


def test_an_order_that_changes_nothing_is_given_up() -> None:
    progress = begun("stop", 0, data(worker()), 0.0)
    assert judge(progress, data(worker()), STALL_SECONDS).failed == (
        "nothing has changed for 60 s: worker 0 is ready"
    )


def test_busy_or_ready_is_no_news() -> None:
    progress = begun("stop", 0, data(worker()), 0.0)
    busy = judge(progress, data(worker(state=WorkerState.BUSY)), 1.0)
    assert told(progress, busy) == []
