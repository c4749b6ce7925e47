# SPDX-License-Identifier: Apache-2.0
"""What each component publishes: one model a component, used to write and to read.

``None`` stands for unknown. Field names are the bus properties in snake_case.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from gpuwarden.control.host import TuningData
from gpuwarden.control.memory import WorkerMemory
from gpuwarden.values import ServiceState, ThermalState, WorkerState

Held = Literal["", "heat", "released", "reset", "reboot"]


class State(BaseModel):
    """Base of the published models: nothing unknown in, nothing changed after."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Xid(State):
    """An error that the driver has reported of a card, and when it was read."""

    number: int
    unix_microseconds: int


class ThermalData(State):
    """One card as its thermal guard sees it (the Gpu and Thermal properties of the bus).

    Since the boot: the last ``xids``, oldest first; ``throttle_seconds`` in which each clock event
    reason held the clocks down; ``state_seconds`` in each state.
    """

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
    xids: list[Xid] = []
    throttle_seconds: dict[str, float] = {}
    state_seconds: dict[str, float] = {}


NodeSource = Literal["kernel", "driver", "only-node", "unknown"]
MemoryPolicy = Literal["preferred", "bind", "none"]


class Card(State):
    """A card of this node, fixed once a boot; a card that vanished stays with present=False.

    :ivar numa_node_from: who knew its node: the kernel, the driver by the CPUs that it calls near,
        or nobody; ``only-node`` is a machine that has no other.
    :ivar mig_uuids: the instances of a card that MIG divides.
    """

    index: int
    uuid: str
    name: str
    pci_address: str
    minor: int | None
    numa_node: int
    present: bool
    numa_node_from: NodeSource = "kernel"
    mig_uuids: list[str] = []


class PlannedNode(State):
    """A NUMA node: its cores as CPU lists, of the CPUs that are online, and its socket if known."""

    number: int
    socket: int | None = None
    cores: list[str]
    has_memory: bool


class PlannedWorker(State):
    """Where one worker runs.

    :ivar numa_node: the node of its CPUs; -1 where they are left to the kernel.
    :ivar memory_node: the node of its memory; -1 where that is left to the kernel.
    :ivar has_own_cpus: no other worker and no housekeeping is on its CPUs.
    :ivar inference_priority: ``normal`` or ``fifo:N``, of its GPU thread.
    :ivar visible_device: what CUDA is shown: the card, or one instance of a divided card.
    :ivar slice: where it runs.
    :ivar revision: changes with whatever makes a restart necessary.
    :ivar revised_monotonic_microseconds: when systemd knew the revision, by CLOCK_MONOTONIC: a
        worker that was started earlier runs by another one. 0: since the boot's first plan.
    """

    number: int
    gpu_index: int
    gpu_uuid: str
    numa_node: int
    cpus: str
    memory_max_bytes: int
    memory_node: int = -1
    memory_policy: MemoryPolicy = "none"
    has_own_cpus: bool = False
    inference_priority: str = "normal"
    visible_device: str = ""
    slice: str = ""
    revision: str = ""
    revised_monotonic_microseconds: int = 0


class PlanData(State):
    """The placement plan: cards of the node and where each worker goes.

    ``configuration_digest`` tells which configuration it was made for, ``machine`` which CPUs and
    nodes. ``worker_cpus`` are those that cpusets leave to workers; ``notes`` say what was decided
    where something was to be decided, ``warnings`` what is not as it should be.
    """

    driver_version: str | None
    simulated: bool
    cards: list[Card]
    workers: list[PlannedWorker]
    housekeeping_cpus: str
    configuration_digest: str = ""
    machine: str = ""
    nodes: list[PlannedNode] = []
    worker_cpus: str = ""
    housekeeping_exclusive: bool = False
    notes: list[str] = []
    warnings: list[str] = []
    reason: str = ""


HolderClass = Literal[
    "ours",
    "ours-dead",
    "container",
    "desktop",
    "mps",
    "monitoring",
    "defunct",
    "uninterruptible",
    "hidden",
    "foreign",
]


class Holder(State):
    """A process that holds memory of a card.

    :ivar start_time_ticks: field 22 of /proc/PID/stat: with the pid, the process's identity.
    :ivar command: its name alone (comm), never its arguments.
    :ivar unit: systemd's unit that its cgroup is in; empty where it is in none.
    :ivar worker: the worker that its cgroup or its environment tag names.
    :ivar listed: whether the driver lists it; False for one that was found by what it has open.
    :ivar mappings: whether it was found by its open descriptors or maps.
    """

    pid: int
    start_time_ticks: int
    holder_class: HolderClass
    command: str
    uid: int
    unit: str = ""
    control_group: str = ""
    worker: int | None = None
    vram_bytes: int | None = None
    listed: bool = True
    mappings: bool = False


class ScanData(State):
    """Who holds a card's memory.

    :ivar problem: why the list may be incomplete; then nothing that is missing in it proves
        anything. Empty: it is complete.
    :ivar scans: scans done since the scanner started.
    :ivar unexplained_bytes: memory in use of which nobody was found to be the holder.
    """

    gpu_index: int
    gpu_uuid: str
    state: Literal["scanning", "blind", "released"]
    problem: str = ""
    scans: int
    holders: list[Holder] = []
    vram_used_bytes: int | None = None
    vram_total_bytes: int | None = None
    unexplained_bytes: int | None = None


class Orphan(State):
    """A process that holds a card's memory and is none of a worker that runs.

    :ivar since: when it was first seen, in microseconds since 1970; ``scans_seen``: so, in a row.
    """

    pid: int
    start_time_ticks: int
    gpu: int
    orphan_class: HolderClass
    command: str
    vram_bytes: int | None
    unit: str = ""
    since: int
    scans_seen: int


class HappenedEvent(State):
    """Something that the guard has told the journal."""

    unix_microseconds: int
    event: str
    message: str
    level: Literal["info", "warning", "error"] = "info"


class ServerFigures(State):
    """What the server that a worker runs says of itself; the cache's usage is a share."""

    running: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None


class GatewayWorker(State):
    """A connected worker as the gateway sees it.

    ``stalled``: a batch is past its time limit. ``silent_seconds``: nothing was heard for so long.
    """

    number: int
    pid: int
    state: Literal["loading", "ready", "busy", "draining"]
    outstanding: int
    requests: int
    failures: int
    last_error: str = ""
    vram_reserved_bytes: int | None = None
    vram_allocated_bytes: int | None = None
    vram: WorkerMemory | None = None
    stalled: bool = False
    silent_seconds: float | None = None
    server: ServerFigures | None = None


class GatewayJobs(State):
    """Durable jobs by status, and what they take on disk; ``problem``: why none can be kept."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    stored_bytes: int = 0
    limit_bytes: int = 0
    problem: str = ""


class GatewayData(State):
    """The front door: queue, counters, connected workers, durable jobs.

    :ivar credits: requests that each card's workers would still take.
    :ivar paused_until: when a pause ends, in microseconds since 1970; None: there is none.
    :ivar drained: workers that get no work by the guard's order.
    """

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
    credits: dict[int, int] = {}
    paused: bool = False
    paused_until: int | None = None
    drained: list[int] = []
    workers: list[GatewayWorker] = []
    jobs: GatewayJobs | None = None


class WorkerStatus(State):
    """One worker as the guard knows it (the Worker properties of the bus).

    ``inference_priority`` is what the kernel says of its GPU thread: ``normal``, ``fifo:N``,
    ``nice:N``, or empty where there is none.
    ``wanted`` is False while a worker is down because somebody stopped it. ``held`` says why the
    guard doesn't start one that is wanted: its card is too hot, released for maintenance, or needs
    a reset or a reboot first.
    ``outdated`` is a worker that runs by a former plan or by former settings until it is restarted.
    ``operation`` says what is being done with it (``restarting: ghost``), ``last_exit`` how and
    when its former life ended. ``process_depth`` counts the generations of its processes.
    """

    number: int
    unit: str
    state: WorkerState
    wanted: bool = True
    held: Held = ""
    outdated: bool = False
    main_pid: int
    gpu: int
    gpu_uuid: str
    numa_node: int
    cpus: str
    inference_priority: str = ""
    process_count: int
    requests: int
    failures: int
    restarts: int
    vram_reserved_bytes: int | None = None
    vram_allocated_bytes: int | None = None
    vram_fragmentation: float | None = None
    vram: WorkerMemory | None = None
    server: ServerFigures | None = None
    memory_bytes: int | None = None
    memory_soft_limit_bytes: int | None = None
    process_depth: int = 0
    operation: str = ""
    last_error: str = ""
    last_exit: str = ""
    reason: str = ""
    since: int


class GuardData(State):
    """The whole service as Manager.GetStatus answers it.

    :ivar scans: by card, why its holders are unknown; empty where they are known.
    :ivar events: the last ones, oldest first.
    """

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
    orphans: list[Orphan] = []
    scans: dict[int, str] = {}
    events: list[HappenedEvent] = []
