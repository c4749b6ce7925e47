"""What each component publishes: one model a component, used to write and to read.

``None`` stands for unknown. Field names are the bus properties in snake_case.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from gpuwarden.values import ServiceState, ThermalState, WorkerState

Held = Literal["", "heat", "released"]


class State(BaseModel):
    """Base of the published models: nothing unknown in, nothing changed after."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ThermalData(State):
    """One card as its thermal guard sees it (the Gpu and Thermal properties of the bus)."""

    index: int
    uuid: str
    name: str
    pci_address: str
    numa_node: int
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    utilization: float | None = None
    vram_used_bytes: int | None = None
    vram_total_bytes: int | None = None
    clock_event_reasons: list[str] = []
    recovery_action: str = "unknown"
    state: ThermalState
    alert_celsius: float | None = None
    critical_celsius: float | None = None
    safe_celsius: float | None = None
    original_power_limit_watts: float | None = None
    batch_limit: int | None = None
    dispatch_duty: float = 1.0
    throttles: int = 0
    recoveries: int = 0
    since: int
    reason: str = ""
    actuators: dict[str, str] = {}
    admission: Literal["open", "paused"] = "open"
    stop_requested: bool = False
    sm_clock_lock_mhz: int | None = None


class Card(State):
    """A card of this node, fixed once a boot; a card that vanished stays with present=False."""

    index: int
    uuid: str
    name: str
    pci_address: str
    minor: int | None
    numa_node: int
    present: bool


class PlannedWorker(State):
    """Where one worker runs."""

    number: int
    gpu_index: int
    gpu_uuid: str
    numa_node: int
    cpus: str
    memory_max_bytes: int


class PlanData(State):
    """The placement plan: cards of the node and where each worker goes.

    ``configuration_digest`` tells which configuration it was made for.
    """

    driver_version: str | None
    simulated: bool
    cards: list[Card]
    workers: list[PlannedWorker]
    housekeeping_cpus: str
    configuration_digest: str = ""
    warnings: list[str] = []
    reason: str = ""


class GatewayWorker(State):
    """A connected worker as the gateway sees it."""

    number: int
    pid: int
    state: Literal["loading", "ready", "busy", "draining"]
    outstanding: int
    requests: int
    failures: int
    last_error: str = ""
    vram_reserved_bytes: int | None = None
    vram_allocated_bytes: int | None = None


class GatewayData(State):
    """The front door: queue, counters, connected workers."""

    queue_depth: int
    queue_limit: int
    workers_active: int
    accepted: int
    completed: int
    failed: int
    rejected: int
    retried: int
    mean_response_seconds: float | None
    p95_response_seconds: float | None
    batch_limits: dict[int, int] = {}
    paused: bool = False
    workers: list[GatewayWorker] = []


class PortHolder(State):
    """Who listens where our front door should."""

    address: str
    pid: int
    command: str
    unit: str


class TuningData(State):
    """What the host is tuned to, as tuned said when it was last asked.

    ``time_of_day`` and ``profile`` are empty where we tune nothing; ``former`` is the profile that
    comes back then (empty: none). ``verified`` is None where it was not looked at. ``untuned`` says
    why the host is not tuned although it is to be, where nothing is wrong with that (no tuned);
    ``fault``, where something is; ``note``, what else is to be known.
    """

    time_of_day: Literal["", "day", "night"] = ""
    profile: str = ""
    former: str = ""
    verified: bool | None = None
    untuned: str = ""
    fault: str = ""
    note: str = ""


class WorkerStatus(State):
    """One worker as the guard knows it (the Worker properties of the bus).

    ``wanted`` is False while a worker is down because somebody stopped it. ``held`` says why the
    guard doesn't start one that is wanted: its card is too hot, or released for maintenance.
    """

    number: int
    unit: str
    state: WorkerState
    wanted: bool = True
    held: Held = ""
    main_pid: int
    gpu: int
    gpu_uuid: str
    numa_node: int
    cpus: str
    process_count: int
    requests: int
    failures: int
    restarts: int
    vram_reserved_bytes: int | None = None
    vram_allocated_bytes: int | None = None
    vram_fragmentation: float | None = None
    last_error: str = ""
    reason: str = ""
    since: int


class GuardData(State):
    """The whole service as Manager.GetStatus answers it."""

    version: str
    simulated: bool
    state: ServiceState
    reasons: list[str]
    workers_ready: int
    workers_total: int
    profile: str
    workers: list[WorkerStatus]
    gpus: list[ThermalData]
    gateway: GatewayData | None
    tuning: TuningData | None = None
