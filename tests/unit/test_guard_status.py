# SPDX-License-Identifier: Apache-2.0
from gpuwarden.control.host import TuningData
from gpuwarden.control.states import (
    Card,
    GatewayData,
    GatewayJobs,
    GatewayWorker,
    PlanData,
    PlannedWorker,
    ThermalData,
)
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.status import Seen, status_line, summarise
from gpuwarden.values import ServiceState, ThermalState, WorkerState

CARD = Card(
    index=0,
    uuid="GPU-0",
    name="A100",
    pci_address="0000:41:00.0",
    minor=0,
    numa_node=0,
    present=True,
)
PLAN = PlanData(
    driver_version="1",
    simulated=True,
    cards=[CARD],
    workers=[
        PlannedWorker(
            number=0, gpu_index=0, gpu_uuid="GPU-0", numa_node=0, cpus="1", memory_max_bytes=1
        )
    ],
    housekeeping_cpus="0",
)
COOL = ThermalData(
    index=0,
    uuid="GPU-0",
    name="A100",
    pci_address="0000:41:00.0",
    numa_node=0,
    state=ThermalState.NORMAL,
    since=1,
)
UP = UnitFacts(active_state="active", sub_state="running", main_pid=10)


def gateway(*workers: GatewayWorker) -> GatewayData:
    return GatewayData(
        queue_depth=0,
        queue_limit=100,
        workers_active=len(workers),
        accepted=0,
        completed=0,
        failed=0,
        rejected=0,
        retried=0,
        mean_response_seconds=None,
        p95_response_seconds=None,
        workers=list(workers),
    )


def told(pid: int, state: str = "busy") -> GatewayWorker:
    return GatewayWorker.model_validate(
        {"number": 0, "pid": pid, "state": state, "outstanding": 1, "requests": 5, "failures": 1}
    )


def seen(**changes: object) -> Seen:
    good: dict[str, object] = {
        "version": "1",
        "plan": PLAN,
        "units": {0: UP},
        "thermal": {0: COOL},
        "gateway": gateway(told(10)),
        "was_ready": frozenset({0}),
    }
    return Seen(**{**good, **changes})  # type: ignore[arg-type]


def test_a_healthy_node_is_running_without_reasons() -> None:
    data = summarise(seen())
    assert (data.state, data.reasons, data.workers_ready) == (ServiceState.RUNNING, [], 1)
    assert data.workers[0].state is WorkerState.BUSY
    assert status_line(data) == "running: SIMULATED cards, 1 of 1 workers ready, 1 cards"


def test_it_is_starting_until_each_worker_was_ready_once() -> None:
    down = {"units": {0: UnitFacts("activating")}, "gateway": gateway()}
    assert summarise(seen(**down, was_ready=frozenset())).state is ServiceState.STARTING
    later = summarise(seen(**down))
    assert later.state is ServiceState.DEGRADED
    assert later.reasons == ["worker 0 is starting"]


def test_the_priority_that_is_told_is_the_kernels_not_the_plans() -> None:
    assert summarise(seen(priorities={0: "nice:-10"})).workers[0].inference_priority == "nice:-10"
    assert summarise(seen()).workers[0].inference_priority == ""


def test_a_failed_worker_degrades_the_service_with_its_reason() -> None:
    failed = UnitFacts("failed", "failed", result="oom-kill")
    data = summarise(seen(units={0: failed}, gateway=gateway(), was_ready=frozenset()))
    assert data.state is ServiceState.DEGRADED
    assert data.reasons == ["worker 0 failed: killed by the kernel at its memory limit"]


def test_a_worker_that_systemd_refuses_to_start_counts_as_failed() -> None:
    data = summarise(
        seen(units={0: UnitFacts()}, gateway=gateway(), job_errors={0: "StartUnit: assert"})
    )
    assert data.workers[0].state is WorkerState.FAILED
    assert "assert" in data.reasons[0]


def test_a_silent_thermal_guard_makes_its_card_blind() -> None:
    data = summarise(seen(thermal={}))
    assert data.gpus[0].state is ThermalState.BLIND
    (reason,) = data.reasons
    assert reason.startswith("GPU 0 is blind: its thermal guard says nothing (systemctl status ")


def test_a_card_too_hot_is_one_reason_for_all_its_workers() -> None:
    hot = COOL.model_copy(update={"state": ThermalState.CRITICAL, "reason": "2 C below shutdown"})
    for was_ready in (frozenset({0}), frozenset[int]()):
        data = summarise(
            seen(units={0: UnitFacts()}, thermal={0: hot}, held={0: "heat"}, was_ready=was_ready)
        )
        assert data.state is ServiceState.DEGRADED
        assert data.reasons == ["GPU 0 is too hot, its workers are stopped: 2 C below shutdown"]
        assert (data.workers[0].held, data.workers[0].reason) == ("heat", "GPU 0 is too hot")


def test_a_released_card_is_said_to_be_unwatched() -> None:
    released = COOL.model_copy(update={"state": ThermalState.RELEASED, "reason": "for 600 s"})
    data = summarise(seen(thermal={0: released}))
    assert data.state is ServiceState.DEGRADED
    assert data.reasons == ["GPU 0 is released: for 600 s"]


def test_no_plan_no_gateway_and_no_workers_are_said() -> None:
    data = summarise(seen(plan=None, gateway=None, units={}))
    assert data.state is ServiceState.DEGRADED
    assert "medgemma-numa" in data.reasons[0]
    assert "medgemma-gateway" in data.reasons[1]


def test_a_front_door_that_somebody_paused_is_degraded_and_says_until_when() -> None:
    paused = gateway(told(10)).model_copy(update={"paused_until": 1_700_000_000_000_000})
    data = summarise(seen(gateway=paused))
    assert data.state is ServiceState.DEGRADED
    assert data.reasons == ["the front door is paused until 2023-11-14 22:13:20 UTC"]


def test_what_the_gateway_says_of_a_former_life_is_not_believed() -> None:
    data = summarise(seen(gateway=gateway(told(pid=9))))
    assert data.workers[0].state is WorkerState.READY
    assert data.workers[0].requests == 0


def test_stopping_wins_over_everything() -> None:
    assert summarise(seen(stopping=True)).state is ServiceState.STOPPING


def test_the_profile_in_force_is_the_managers() -> None:
    assert summarise(Seen("1", PLAN)).profile == ""
    tuning = TuningData(time_of_day="day", profile="gpuwarden-day", verified=True)
    data = summarise(Seen("1", PLAN, tuning=tuning))
    assert (data.profile, data.tuning) == ("gpuwarden-day", tuning)


def test_a_host_that_could_not_be_tuned_degrades_and_one_that_has_no_tuner_does_not() -> None:
    without = summarise(Seen("1", PLAN, tuning=TuningData(untuned="tuned is not installed")))
    assert not [reason for reason in without.reasons if "tuned" in reason]
    broken = summarise(Seen("1", PLAN, tuning=TuningData(fault="tuned refuses: no")))
    assert "the host is not tuned: tuned refuses: no" in broken.reasons


def test_a_front_door_that_can_keep_no_jobs_degrades_the_service_and_says_why() -> None:
    jobs = GatewayJobs(problem="jobs can't be kept: there is no key")
    data = summarise(seen(gateway=gateway(told(10)).model_copy(update={"jobs": jobs})))
    assert (data.state, data.reasons) == (ServiceState.DEGRADED, [jobs.problem])
    well = gateway(told(10)).model_copy(update={"jobs": GatewayJobs()})
    assert summarise(seen(gateway=well)).reasons == []
