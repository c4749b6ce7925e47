# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.guard.facts import unit_facts
from gpuwarden.guard.kernel import allowed_cpus, inference_priority, process_count
from gpuwarden.guard.lifecycle import (
    RETRY_SECONDS,
    GatewayView,
    Intent,
    UnitFacts,
    last_error,
    next_intent,
    should_start,
    worker_state,
)
from gpuwarden.systemd.units import UnitProperties, unit_path
from gpuwarden.values import WorkerState

states = st.sampled_from(WorkerState)


@pytest.mark.parametrize(
    ("active_state", "gateway", "expected"),
    [
        ("inactive", None, WorkerState.STOPPED),
        ("failed", None, WorkerState.FAILED),
        ("activating", None, WorkerState.STARTING),
        ("activating", "loading", WorkerState.LOADING),
        ("active", None, WorkerState.READY),
        ("active", "loading", WorkerState.READY),
        ("active", "ready", WorkerState.READY),
        ("active", "busy", WorkerState.BUSY),
        ("active", "draining", WorkerState.DRAINING),
        ("deactivating", "busy", WorkerState.DRAINING),
    ],
)
def test_unit_and_gateway_together_name_the_state(
    active_state: str, gateway: GatewayView | None, expected: WorkerState
) -> None:
    assert worker_state(UnitFacts(active_state=active_state), gateway) is expected


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (UnitFacts(), ""),
        (UnitFacts(result="oom-kill"), "killed by the kernel at its memory limit"),
        (
            UnitFacts(result="exit-code", exit_status=78, status_text="no such file: /opt/python"),
            "exit status 78: no such file: /opt/python",
        ),
        (UnitFacts(result="something-new"), "something-new"),
    ],
)
def test_the_last_error_is_in_words(facts: UnitFacts, words: str) -> None:
    assert last_error(facts) == words


def test_tries_back_off_to_ten_minutes_and_a_success_forgets_them() -> None:
    now, intent, waits = 0.0, Intent(), []
    for _ in range(8):
        intent = next_intent(intent, WorkerState.FAILED, now)
        assert intent.retry_at_seconds is not None
        waits.append(intent.retry_at_seconds - now)
        assert not should_start(intent, WorkerState.FAILED, now)
        now = intent.retry_at_seconds
        assert should_start(intent, WorkerState.FAILED, now)
        intent = replace(intent, retry_at_seconds=None)
    assert waits == [*RETRY_SECONDS, 600, 600]
    assert next_intent(intent, WorkerState.READY, now) == Intent(was_up=True)


@given(st.lists(st.tuples(states, st.floats(0, 1e6)), max_size=50))
def test_a_worker_stopped_by_an_operator_is_never_started(
    seen: list[tuple[WorkerState, float]],
) -> None:
    intent = Intent(wanted=False)
    for state, now in seen:
        if state in (WorkerState.READY, WorkerState.BUSY):
            continue  # somebody started it: it is wanted again
        intent = next_intent(intent, state, now)
        assert not should_start(intent, state, now)


def test_a_worker_that_goes_down_unfailed_was_stopped_by_somebody() -> None:
    up = next_intent(Intent(), WorkerState.READY, 0)
    assert next_intent(up, WorkerState.STOPPED, 1) == Intent(wanted=False)
    assert next_intent(Intent(wanted=False), WorkerState.BUSY, 2) == Intent(was_up=True)


def test_a_worker_that_was_never_up_is_still_wanted() -> None:
    assert next_intent(Intent(), WorkerState.STOPPED, 0).wanted


@given(states, st.floats(0, 1e6))
def test_a_look_twice_at_the_same_failure_sets_one_time(state: WorkerState, now: float) -> None:
    once = next_intent(Intent(), state, now)
    assert next_intent(once, state, now + 1) == once


def test_the_gap_of_a_restart_is_no_stop() -> None:
    gap = unit_facts(UnitProperties({"ActiveState": "inactive", "Job": [77, "/job/77"]}, {}))
    assert worker_state(gap, None) is WorkerState.STARTING
    down = unit_facts(UnitProperties({"ActiveState": "inactive", "Job": [0, "/"]}, {}))
    assert worker_state(down, None) is WorkerState.STOPPED


def test_facts_come_from_systemds_own_properties() -> None:
    facts = unit_facts(
        UnitProperties(
            unit={"ActiveState": "failed", "SubState": "failed", "InactiveEnterTimestamp": 7},
            own={"Result": "oom-kill", "MainPID": 0, "NRestarts": 3, "StatusText": "x"},
        )
    )
    assert facts.since_unix_microseconds == 7
    assert (facts.result, facts.restarts, facts.status_text) == ("oom-kill", 3, "x")
    assert unit_facts(UnitProperties({}, {})) == UnitFacts()


def test_a_unit_name_becomes_its_bus_path() -> None:
    assert unit_path("medgemma-worker@0.service") == (
        "/org/freedesktop/systemd1/unit/medgemma_2dworker_400_2eservice"
    )


def test_the_kernel_is_asked_for_processes_and_cpus(tmp_path: Path) -> None:
    (tmp_path / "a.slice/w.service/sub").mkdir(parents=True)
    (tmp_path / "a.slice/w.service/cgroup.procs").write_text("1\n2\n")
    (tmp_path / "a.slice/w.service/sub/cgroup.procs").write_text("3\n")
    assert process_count("/a.slice/w.service", tmp_path) == 3
    assert process_count("/gone", tmp_path) == process_count("", tmp_path) == 0
    (tmp_path / "42").mkdir()
    (tmp_path / "42/status").write_text("Name:\tx\nCpus_allowed_list:\t2-3\n")
    assert allowed_cpus(42, tmp_path) == "2-3"
    assert allowed_cpus(43, tmp_path) == allowed_cpus(0, tmp_path) == ""


@pytest.mark.parametrize(
    ("nice", "realtime", "policy", "told"),
    [
        (0, 0, 0, "normal"),
        (0, 10, 1, "fifo:10"),
        (-10, 0, 0, "nice:-10"),
        (0, 5, 2, "rr:5"),
        (0, 0, 3, "batch"),
    ],
)
def test_the_kernel_is_asked_for_the_gpu_threads_priority(
    tmp_path: Path, nice: int, realtime: int, policy: int, told: str
) -> None:
    for number, name in (("42", "python3"), ("100", "gpu"), ("101", "gpu")):
        thread = tmp_path / "42/task" / number
        thread.mkdir(parents=True)
        (thread / "comm").write_text(f"{name}\n")
        fields = ["0"] * 50  # from the third one on, proc(5)
        if number == "100":  # the oldest of that name
            fields[19 - 3], fields[40 - 3], fields[41 - 3] = str(nice), str(realtime), str(policy)
        (thread / "stat").write_text(f"{number} (a ) b) {' '.join(fields)}\n")
    assert inference_priority(42, tmp_path) == told


def test_without_a_gpu_thread_there_is_no_priority(tmp_path: Path) -> None:
    (tmp_path / "42/task/42").mkdir(parents=True)
    (tmp_path / "42/task/42/comm").write_text("python3\n")
    for pid in (42, 43, 0):
        assert inference_priority(pid, tmp_path) == ""
