# SPDX-License-Identifier: Apache-2.0
"""The whole service in one value, and whether it is well: pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuwarden.control.host import TuningData
from gpuwarden.control.states import (
    Card,
    GatewayData,
    GatewayWorker,
    GuardData,
    Held,
    PlanData,
    PlannedWorker,
    ThermalData,
    WorkerStatus,
)
from gpuwarden.guard.breaker import TAKING_DOWN
from gpuwarden.guard.findings import Findings, Footprint
from gpuwarden.guard.kernel import Process, generations
from gpuwarden.guard.lifecycle import UnitFacts, is_outdated, last_error, worker_state
from gpuwarden.guard.operation import DRAINED, Kind
from gpuwarden.names import thermal_unit, worker_unit
from gpuwarden.text import utc
from gpuwarden.values import ServiceState, ThermalState, WorkerState

SERVING = frozenset({WorkerState.READY, WorkerState.BUSY})
UNDER_WAY = frozenset({WorkerState.STOPPED, WorkerState.STARTING, WorkerState.LOADING})
UNWELL = frozenset({WorkerState.GHOST, WorkerState.STUCK})
WHY_HELD: dict[Held, str] = {
    "": "",
    "heat": "GPU {} is too hot",
    "released": "GPU {} is released",
    "reset": "GPU {} needs a reset",
    "reboot": "GPU {} needs a reboot of this node",
}
OUTDATED = "runs by former settings until it is restarted"
UNWATCHED = frozenset({ThermalState.BLIND, ThermalState.LOST, ThermalState.RELEASED})


@dataclass(frozen=True)
class Seen:
    """Everything the guard knows at one moment.

    ``operations`` says what is being done with a worker, ``last_errors`` and ``last_exits`` how
    former lives ended, ``out_of_service`` by card why it is and what to do.
    ``thermal`` and ``gateway`` hold only states fresh enough to be believed; ``held`` says by card
    why its workers are held back; ``faults`` are sentences of what else is wrong (a socket that
    could not be opened, a bad configuration).
    """

    version: str
    plan: PlanData | None
    units: Mapping[int, UnitFacts] = field(default_factory=dict)
    job_errors: Mapping[int, str] = field(default_factory=dict)
    processes: Mapping[int, tuple[Process, ...]] = field(default_factory=dict)
    operations: Mapping[int, str] = field(default_factory=dict)
    last_errors: Mapping[int, str] = field(default_factory=dict)
    last_exits: Mapping[int, str] = field(default_factory=dict)
    out_of_service: Mapping[int, str] = field(default_factory=dict)
    cpus: Mapping[int, str] = field(default_factory=dict)
    priorities: Mapping[int, str] = field(default_factory=dict)
    thermal: Mapping[int, ThermalData] = field(default_factory=dict)
    gateway: GatewayData | None = None
    tuning: TuningData | None = None
    was_ready: frozenset[int] = frozenset()
    unwanted: frozenset[int] = frozenset()
    held: Mapping[int, Held] = field(default_factory=dict)
    care: Findings = field(default_factory=Findings)
    stopping: bool = False
    strays: frozenset[int] = frozenset()
    faults: tuple[str, ...] = ()


def summarise(seen: Seen) -> GuardData:
    """The state of the service as the bus, the snapshot and the status line tell it."""
    planned = seen.plan.workers if seen.plan else []
    workers = [_worker(entry, seen) for entry in planned]
    gpus = [_gpu(card, seen) for card in (seen.plan.cards if seen.plan else [])]
    reasons = _reasons(seen, workers, gpus)
    return GuardData(
        version=seen.version,
        simulated=seen.plan.simulated if seen.plan else False,
        state=_service_state(seen, workers, reasons),
        reasons=reasons,
        workers_ready=sum(worker.state in SERVING for worker in workers),
        workers_total=len(workers),
        profile=seen.tuning.profile if seen.tuning else "",
        workers=workers,
        gpus=gpus,
        gateway=seen.gateway,
        tuning=seen.tuning,
        orphans=list(seen.care.orphans),
        scans=dict(seen.care.scans),
    )


def status_line(data: GuardData) -> str:
    """One line for ``systemctl status``."""
    simulated = "SIMULATED cards, " if data.simulated else ""
    head = (
        f"{data.state}: {simulated}{data.workers_ready} of {data.workers_total} workers ready, "
        f"{len(data.gpus)} cards"
    )
    return "; ".join([head, *data.reasons])


def _worker(planned: PlannedWorker, seen: Seen) -> WorkerStatus:
    number = planned.number
    unit = seen.units.get(number, UnitFacts())
    told = _told(seen.gateway, number, unit.main_pid)
    state = _state(unit, told, seen, number)
    ailment = seen.care.ailing.get(number) if state in SERVING else None
    memory = seen.care.memory.get(number, Footprint())
    error = last_error(unit) or seen.job_errors.get(number, "") or (told.last_error if told else "")
    former_error = seen.last_errors.get(number, "")
    held = seen.held.get(planned.gpu_index, "")
    operation = seen.operations.get(number, "")
    outdated = is_outdated(unit, planned.revised_monotonic_microseconds)
    return WorkerStatus(
        number=number,
        unit=worker_unit(number),
        state=ailment.state if ailment else state,
        wanted=number not in seen.unwanted,
        held=held,
        outdated=outdated,
        main_pid=unit.main_pid,
        gpu=planned.gpu_index,
        gpu_uuid=planned.gpu_uuid,
        numa_node=planned.numa_node,
        cpus=seen.cpus.get(number, "") or planned.cpus,
        inference_priority=seen.priorities.get(number, ""),
        restarts=unit.restarts,
        **_counted(seen.processes.get(number, ()), told),
        memory_bytes=memory.bytes,
        memory_soft_limit_bytes=memory.soft_limit_bytes,
        operation=operation,
        last_error=error or former_error,
        last_exit=seen.last_exits.get(number, ""),
        reason=WHY_HELD[held].format(planned.gpu_index)
        or operation
        or (ailment.reason if ailment else error)
        or ("" if state in SERVING else former_error)
        or (OUTDATED if outdated else ""),
        since=unit.since_unix_microseconds,
    )


def _told(gateway: GatewayData | None, number: int, main_pid: int) -> GatewayWorker | None:
    """What the gateway says of the worker; None while it still means a former life."""
    known = gateway.workers if gateway else []
    return next((each for each in known if (each.number, each.pid) == (number, main_pid)), None)


def _state(unit: UnitFacts, told: GatewayWorker | None, seen: Seen, number: int) -> WorkerState:
    """The worker's state, but for what ails it."""
    state = worker_state(unit, told.state if told else None)
    if state is WorkerState.STOPPED and number in seen.job_errors:
        return WorkerState.FAILED  # systemd refused to start it at all
    if state in SERVING and seen.operations.get(number) in (DRAINED, Kind.DRAIN):
        return WorkerState.DRAINING  # also while the gateway has not been told
    return state


def _counted(processes: Sequence[Process], told: GatewayWorker | None) -> dict[str, Any]:
    """The worker's processes, its own counters, and how it holds its card's memory."""
    of_processes = {"process_count": len(processes), "process_depth": generations(processes)}
    if told is None:
        return of_processes | {"requests": 0, "failures": 0}
    reserved, allocated = told.vram_reserved_bytes, told.vram_allocated_bytes
    in_pieces = 1 - allocated / reserved if reserved and allocated is not None else None
    return of_processes | {
        "requests": told.requests,
        "failures": told.failures,
        "vram_reserved_bytes": reserved,
        "vram_allocated_bytes": allocated,
        "vram_fragmentation": in_pieces,
        "vram": told.vram,
        "server": told.server,
    }


def _gpu(card: Card, seen: Seen) -> ThermalData:
    """The card as its guard sees it; blind where the guard has fallen silent."""
    known = seen.thermal.get(card.index)
    if known is not None:
        return known
    state = ThermalState.BLIND if card.present else ThermalState.LOST
    return ThermalData(
        index=card.index,
        uuid=card.uuid,
        name=card.name,
        pci_address=card.pci_address,
        numa_node=card.numa_node,
        state=state,
        since=0,
        reason=_silence(card),
    )


def _silence(card: Card) -> str:
    if not card.present:
        return "the card is gone"
    return f"its thermal guard says nothing (systemctl status {thermal_unit(card.index)})"


def _reasons(seen: Seen, workers: Iterable[WorkerStatus], gpus: Iterable[ThermalData]) -> list[str]:
    reasons = list(seen.faults)
    if seen.plan is None:
        reasons.append("no placement plan (systemctl status medgemma-numa)")
    elif seen.plan.reason:
        reasons.append(seen.plan.reason)
    reasons += [
        f"worker {number} runs and is not planned any more (systemctl stop {worker_unit(number)})"
        for number in sorted(seen.strays)
    ]
    for worker in workers:
        reasons += _worker_reason(worker, was_ready=worker.number in seen.was_ready)
    for gpu in gpus:
        told = f": {gpu.reason}" if gpu.reason else ""
        if gpu.index in seen.out_of_service:
            reasons.append(seen.out_of_service[gpu.index])
        elif seen.held.get(gpu.index) == "heat":
            reasons.append(f"GPU {gpu.index} is too hot, its workers are stopped{told}")
        elif gpu.state in UNWATCHED:
            reasons.append(f"GPU {gpu.index} is {gpu.state}{told}")
    if seen.gateway is None:
        reasons.append("the gateway says nothing (systemctl status medgemma-gateway)")
    elif seen.gateway.paused_until is not None:
        reasons.append(f"the front door is paused until {utc(seen.gateway.paused_until)}")
    if seen.gateway is not None and seen.gateway.jobs and seen.gateway.jobs.problem:
        reasons.append(seen.gateway.jobs.problem)
    if seen.tuning is not None and seen.tuning.fault:
        reasons.append(f"the host is not tuned: {seen.tuning.fault}")
    return reasons


def _worker_reason(worker: WorkerStatus, *, was_ready: bool) -> list[str]:
    if worker.state is WorkerState.FAILED:
        return [f"worker {worker.number} failed: {worker.last_error or 'no reason known'}"]
    if worker.held in TAKING_DOWN:
        return []  # its card says it for all its workers
    if worker.state in UNWELL:
        return [f"worker {worker.number} is {worker.state}: {worker.reason}"]
    if worker.state in UNDER_WAY and was_ready:
        why = worker.operation or worker.last_error
        return [f"worker {worker.number} is {worker.state}" + (f" ({why})" if why else "")]
    if worker.state is WorkerState.DRAINING:
        why = worker.operation if worker.operation not in ("", Kind.DRAIN) else ""
        return [f"worker {worker.number} is draining" + (f" ({why})" if why else "")]
    return []


def _service_state(seen: Seen, workers: list[WorkerStatus], reasons: list[str]) -> ServiceState:
    """``starting`` until each worker was ready once, has failed, or is held back."""
    if seen.stopping:
        return ServiceState.STOPPING
    pending = [
        worker
        for worker in workers
        if worker.state in UNDER_WAY and worker.number not in seen.was_ready and not worker.held
    ]
    if pending and not any(w.state is WorkerState.FAILED for w in workers):
        return ServiceState.STARTING
    return ServiceState.DEGRADED if reasons or not workers else ServiceState.RUNNING
