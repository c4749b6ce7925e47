# SPDX-License-Identifier: Apache-2.0
"""From what the components publish to samples. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from gpuwarden import __version__
from gpuwarden.control.states import (
    Card,
    GuardData,
    HolderClass,
    PlanData,
    ScanData,
    ThermalData,
    WorkerStatus,
)
from gpuwarden.exposition.definition import Sample
from gpuwarden.metrics import meters
from gpuwarden.values import ServiceState, ThermalState, WorkerState

MICROSECONDS = 1e6
HERTZ_PER_MEGAHERTZ = 1e6
# What slows a card for its heat or its power (gpuwarden.nvml.vocabulary): there from the beginning,
# so that the first time is seen as a growth.
SLOWING = (
    "software-power-cap",
    "hardware-slowdown",
    "software-thermal-slowdown",
    "hardware-thermal-slowdown",
    "hardware-power-brake",
)
# Theirs by right: never shown as orphans.
_NO_ORPHANS = ("ours", "mps", "monitoring")
ORPHAN_CLASSES = tuple(each for each in get_args(HolderClass) if each not in _NO_ORPHANS)


@dataclass(frozen=True, slots=True)
class Component:
    """Who publishes a state.

    :ivar gpu: the card's index where there is one a card; else empty.
    """

    name: str
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """How old a component's last state is; None where there is none of this boot."""

    age_seconds: float | None
    is_fresh: bool


@dataclass(frozen=True, slots=True)
class Published:
    """All that was published when somebody asked; only what is fresh enough to be believed.

    :ivar heard: of everybody who is to publish something.
    """

    heard: Mapping[Component, Heard] = field(default_factory=dict)
    plan: PlanData | None = None
    guard: GuardData | None = None
    thermal: Mapping[int, ThermalData] = field(default_factory=dict)
    scans: Mapping[int, ScanData] = field(default_factory=dict)


def samples(published: Published) -> Iterator[Sample]:
    """Every metric that is known."""
    yield meters.BUILD_INFO(1, __version__)
    for component, heard in published.heard.items():
        place = component.name, component.gpu
        yield meters.COMPONENT_STALE(not heard.is_fresh, *place)
        yield from meters.COMPONENT_AGE.known(heard.age_seconds, *place)
    if published.plan is not None:
        yield meters.SIMULATED(published.plan.simulated)
        yield meters.WORKERS_PLANNED(len(published.plan.workers))
        for card in published.plan.cards:
            yield from _identity(card)
    for data in published.thermal.values():
        yield from _card(data)
        yield from _cooling(data)
    for scan in published.scans.values():
        yield from _scan(scan)
    if published.guard is not None:
        yield from _service(published.guard)


def _identity(card: Card) -> Iterator[Sample]:
    yield meters.GPU_INFO(1, card.index, card.uuid, card.name)
    yield meters.GPU_PRESENT(card.present, card.index)


def _card(data: ThermalData) -> Iterator[Sample]:
    gpu = data.index
    for meter, value in (
        (meters.GPU_TEMPERATURE, data.temperature_celsius),
        (meters.GPU_MEMORY_TEMPERATURE, data.memory_temperature_celsius),
        (meters.GPU_POWER, data.power_watts),
        (meters.GPU_POWER_LIMIT, data.power_limit_watts),
        (meters.GPU_ORIGINAL_POWER_LIMIT, data.original_power_limit_watts),
        (meters.GPU_UTILIZATION, data.utilization),
        (meters.GPU_VRAM_USED, data.vram_used_bytes),
        (meters.GPU_VRAM_SIZE, data.vram_total_bytes),
    ):
        yield from meter.known(value, gpu)
    if data.sm_clock_lock_mhz is not None:
        yield meters.GPU_SM_CLOCK_LOCK(data.sm_clock_lock_mhz * HERTZ_PER_MEGAHERTZ, gpu)
    for reason, seconds in {**dict.fromkeys(SLOWING, 0.0), **data.throttle_seconds}.items():
        yield meters.GPU_THROTTLE(seconds, gpu, reason)
        if data.temperature_celsius is not None:
            yield meters.GPU_THROTTLED(reason in data.clock_event_reasons, gpu, reason)
    yield meters.GPU_RECOVERY_ACTION(1, gpu, data.recovery_action)
    latest = {xid.number: xid.unix_microseconds for xid in data.xids}
    for number, unix_microseconds in latest.items():
        yield meters.GPU_XID_TIME(unix_microseconds / MICROSECONDS, gpu, number)


def _cooling(data: ThermalData) -> Iterator[Sample]:
    gpu = data.index
    yield from meters.THERMAL_STATE.one_of(data.state, ThermalState, gpu)
    yield meters.THERMAL_STATE_START(data.since / MICROSECONDS, gpu)
    for state in ThermalState:
        yield meters.THERMAL_STATE_SECONDS(data.state_seconds.get(state, 0.0), gpu, state)
    yield from meters.THERMAL_ALERT.known(data.alert_celsius, gpu)
    yield from meters.THERMAL_CRITICAL.known(data.critical_celsius, gpu)
    yield from meters.THERMAL_SAFE.known(data.safe_celsius, gpu)
    yield meters.THERMAL_THROTTLES(data.throttles, gpu)
    yield meters.THERMAL_RECOVERIES(data.recoveries, gpu)
    yield from meters.THERMAL_BATCH_LIMIT.known(data.batch_limit, gpu)
    yield meters.THERMAL_DUTY(data.dispatch_duty, gpu)
    yield meters.THERMAL_PAUSED(data.admission == "paused", gpu)
    yield meters.THERMAL_STOP(data.stop_requested, gpu)
    for actuator, why_not in data.actuators.items():
        yield meters.THERMAL_ACTUATOR(not why_not, gpu, actuator)


def _scan(scan: ScanData) -> Iterator[Sample]:
    gpu = scan.gpu_index
    is_complete = scan.state == "scanning" and not scan.problem
    yield meters.SCANS(scan.scans, gpu)
    yield meters.SCAN_INCOMPLETE(not is_complete, gpu)
    if is_complete:
        yield meters.SCAN_HOLDERS(len(scan.holders), gpu)
        yield from meters.SCAN_UNEXPLAINED.known(scan.unexplained_bytes, gpu)


def _service(guard: GuardData) -> Iterator[Sample]:
    yield from meters.SERVICE_STATE.one_of(guard.state, ServiceState)
    yield meters.SERVICE_PROBLEMS(len(guard.reasons))
    yield meters.WORKERS_READY(guard.workers_ready)
    if guard.tuning is not None:
        yield meters.TUNING_FAULT(bool(guard.tuning.fault))
    for worker in guard.workers:
        yield from _worker(worker)
    for gpu, unknown in guard.scans.items():
        if not unknown:
            yield from _orphans(guard, gpu)


def _worker(worker: WorkerStatus) -> Iterator[Sample]:
    labels = worker.number, worker.gpu
    yield from meters.WORKER_STATE.one_of(worker.state, WorkerState, *labels)
    yield meters.WORKER_RESTARTS(worker.restarts, *labels)
    yield meters.WORKER_WANTED(worker.wanted, *labels)
    yield meters.WORKER_OUTDATED(worker.outdated, *labels)
    yield meters.WORKER_PROCESSES(worker.process_count, *labels)
    if worker.since:
        yield meters.WORKER_STATE_START(worker.since / MICROSECONDS, *labels)
    if worker.held:
        yield meters.WORKER_HELD(1, *labels, worker.held)
    yield from meters.WORKER_MEMORY.known(worker.memory_bytes, *labels)
    yield from meters.WORKER_MEMORY_SOFT_LIMIT.known(worker.memory_soft_limit_bytes, *labels)
    yield from meters.WORKER_VRAM_RESERVED.known(worker.vram_reserved_bytes, *labels)
    yield from meters.WORKER_VRAM_ALLOCATED.known(worker.vram_allocated_bytes, *labels)
    yield from meters.WORKER_VRAM_FRAGMENTATION.known(worker.vram_fragmentation, *labels)


def _orphans(guard: GuardData, gpu: int) -> Iterator[Sample]:
    found = [orphan for orphan in guard.orphans if orphan.gpu == gpu]
    count = Counter(orphan.orphan_class for orphan in found)
    held = Counter[str]()
    for orphan in found:
        held[orphan.orphan_class] += orphan.vram_bytes or 0
    for each in ORPHAN_CLASSES:
        yield meters.ORPHANS(count[each], gpu, each)
        yield meters.ORPHANS_VRAM(held[each], gpu, each)
