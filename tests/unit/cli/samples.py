# SPDX-License-Identifier: Apache-2.0
"""States of a service, for what the command makes of them."""

from gpuwarden.control.states import (
    GatewayData,
    GuardData,
    HappenedEvent,
    Orphan,
    ThermalData,
    WorkerStatus,
)
from gpuwarden.values import ServiceState, ThermalState, WorkerState

NOW_UNIX_SECONDS = 1_800_000_000.0


def since(seconds_ago: float) -> int:
    return int((NOW_UNIX_SECONDS - seconds_ago) * 1_000_000)


def worker(number: int = 0, **changes: object) -> WorkerStatus:
    values: dict[str, object] = {
        "number": number,
        "unit": f"medgemma-worker@{number}.service",
        "state": WorkerState.READY,
        "main_pid": 1000 + number,
        "gpu": number,
        "gpu_uuid": f"GPU-{number}",
        "numa_node": number,
        "cpus": f"{number}",
        "inference_priority": "fifo:10",
        "process_count": 3,
        "requests": 12,
        "failures": 0,
        "restarts": 0,
        "since": since(90),
    }
    return WorkerStatus.model_validate(values | changes)


def gpu(index: int = 0, **changes: object) -> ThermalData:
    values: dict[str, object] = {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H200",
        "pci_address": "0000:11:00.0",
        "numa_node": index,
        "temperature_celsius": 41.4,
        "memory_temperature_celsius": 44.0,
        "power_watts": 122.4,
        "power_limit_watts": 700.0,
        "utilization": 0.25,
        "vram_used_bytes": 2**30,
        "vram_total_bytes": 141 * 2**30,
        "state": ThermalState.NORMAL,
        "since": since(7200),
    }
    return ThermalData.model_validate(values | changes)


def gateway(**changes: object) -> GatewayData:
    values: dict[str, object] = {
        "queue_depth": 3,
        "queue_limit": 100,
        "workers_active": 1,
        "accepted": 20,
        "completed": 15,
        "failed": 1,
        "rejected": 2,
        "retried": 0,
        "mean_response_seconds": 0.123,
        "p95_response_seconds": 0.3,
    }
    return GatewayData.model_validate(values | changes)


def guard(**changes: object) -> GuardData:
    values: dict[str, object] = {
        "version": "0.1.0",
        "simulated": False,
        "state": ServiceState.RUNNING,
        "reasons": [],
        "workers_ready": 2,
        "workers_total": 2,
        "profile": "default",
        "workers": [worker(0), worker(1)],
        "gpus": [gpu(0), gpu(1)],
        "gateway": gateway(),
    }
    return GuardData.model_validate(values | changes)


def happened(seconds_ago: float, message: str, event: str = "worker-state") -> HappenedEvent:
    return HappenedEvent(unix_microseconds=since(seconds_ago), event=event, message=message)


def orphan(pid: int = 812, **changes: object) -> Orphan:
    values: dict[str, object] = {
        "pid": pid,
        "start_time_ticks": 1,
        "gpu": 0,
        "orphan_class": "foreign",
        "command": "python3",
        "vram_bytes": 3 * 2**20,
        "since": since(120),
        "scans_seen": 4,
    }
    return Orphan.model_validate(values | changes)
