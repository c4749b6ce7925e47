# SPDX-License-Identifier: Apache-2.0
"""A node's published states, for what its metrics make of them."""

from gpuwarden.control.host import TuningData
from gpuwarden.control.states import (
    Card,
    PlanData,
    PlannedWorker,
    ScanData,
    ThermalData,
    WorkerStatus,
    Xid,
)
from gpuwarden.metrics.node import Component, Heard, Published
from gpuwarden.values import ThermalState, WorkerState
from tests.unit.cli.samples import gpu, guard, orphan, since, worker

FRESH = Heard(0.5, is_fresh=True)


def plan() -> PlanData:
    cards = [
        Card(
            index=index,
            uuid=f"GPU-{index}",
            name="NVIDIA H200",
            pci_address=f"0000:{index}1:00.0",
            minor=index,
            numa_node=index,
            present=index == 0,
        )
        for index in (0, 1)
    ]
    workers = [
        PlannedWorker(
            number=index,
            gpu_index=index,
            gpu_uuid=f"GPU-{index}",
            numa_node=index,
            cpus="2-3",
            memory_max_bytes=2**30,
        )
        for index in (0, 1)
    ]
    return PlanData(
        driver_version="580.1",
        simulated=True,
        cards=cards,
        workers=workers,
        housekeeping_cpus="0-1",
    )


def hot_card() -> ThermalData:
    """A card that is held cool by every means."""
    return gpu(
        0,
        state=ThermalState.ALERT,
        alert_celsius=78.0,
        critical_celsius=85.0,
        safe_celsius=72.0,
        original_power_limit_watts=700.0,
        batch_limit=1,
        dispatch_duty=0.5,
        throttles=2,
        recoveries=1,
        clock_event_reasons=["software-power-cap"],
        throttle_seconds={"software-power-cap": 12.5},
        state_seconds={"normal": 90.0, "alert": 4.0},
        actuators={"power-limit": "", "memory-clock": "not supported"},
        admission="paused",
        stop_requested=True,
        sm_clock_lock_mhz=1200,
        recovery_action="gpu-reset",
        xids=[Xid(number=79, unix_microseconds=since(60))],
    )


def held_worker() -> WorkerStatus:
    """A worker that is down for its card's heat, and what is known of it."""
    return worker(
        0,
        state=WorkerState.STOPPED,
        held="heat",
        restarts=3,
        memory_bytes=2**30,
        memory_soft_limit_bytes=2**31,
        vram_reserved_bytes=100,
        vram_allocated_bytes=75,
        vram_fragmentation=0.25,
    )


def published(**changes: object) -> Published:
    """A node on which everything that can be known is known."""
    state = guard(
        workers=[held_worker(), worker(1)],
        orphans=[orphan(), orphan(813, vram_bytes=None)],
        scans={0: "", 1: "the card is lost"},
        tuning=TuningData(fault="tuned does not answer"),
        reasons=["worker 0 is stopped"],
    )
    scan = ScanData(
        gpu_index=0, gpu_uuid="GPU-0", state="scanning", scans=7, holders=[], unexplained_bytes=5
    )
    values: dict[str, object] = {
        "heard": {Component("guard"): FRESH, Component("thermal", "0"): FRESH},
        "plan": plan(),
        "guard": state,
        "thermal": {0: hot_card()},
        "scans": {0: scan},
    }
    return Published(**{**values, **changes})  # type: ignore[arg-type]  # each by its name
