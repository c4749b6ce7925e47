# SPDX-License-Identifier: Apache-2.0
"""States of a service to export in tests."""

from gpuwarden.control.states import GatewayData, GuardData, ThermalData, WorkerStatus
from gpuwarden.names import worker_unit
from gpuwarden.values import ServiceState, ThermalState, WorkerState


def card(index: int, **changes: object) -> ThermalData:
    return ThermalData(
        index=index,
        uuid=f"GPU-0000000{index}",
        name="NVIDIA H200",
        pci_address=f"0000:0{index + 1}:00.0",
        numa_node=index,
        temperature_celsius=54.0,
        power_watts=410.5,
        power_limit_watts=700.0,
        vram_used_bytes=2**33,
        vram_total_bytes=150_754_820_096,
        state=ThermalState.NORMAL,
        alert_celsius=80.0,
        since=1_700_000_000_000_000,
        actuators={"power_limit": "", "memory_clock": "not supported"},
    ).model_copy(update=changes)


def worker(number: int, **changes: object) -> WorkerStatus:
    return WorkerStatus(
        number=number,
        unit=worker_unit(number),
        state=WorkerState.READY,
        main_pid=1000 + number,
        gpu=number,
        gpu_uuid=f"GPU-0000000{number}",
        numa_node=number,
        cpus="2-5",
        process_count=3,
        requests=7,
        failures=0,
        restarts=0,
        since=1_700_000_000_000_000,
    ).model_copy(update=changes)


def gateway(**changes: object) -> GatewayData:
    return GatewayData(
        queue_depth=2,
        queue_limit=100,
        workers_active=2,
        accepted=40,
        completed=38,
        failed=0,
        rejected=1,
        retried=0,
        mean_response_seconds=0.25,
        p95_response_seconds=None,
        batch_limits={0: 4, 1: 4},
    ).model_copy(update=changes)


def state(**changes: object) -> GuardData:
    return GuardData(
        version="1.0",
        simulated=True,
        state=ServiceState.RUNNING,
        reasons=[],
        workers_ready=2,
        workers_total=2,
        profile="",
        workers=[worker(0), worker(1)],
        gpus=[card(0), card(1)],
        gateway=gateway(),
    ).model_copy(update=changes)


class FixedSource:
    """A source whose state a test sets."""

    def __init__(self, data: GuardData) -> None:
        self.data = data

    def status(self) -> GuardData:
        return self.data
