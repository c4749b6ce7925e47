"""The plan as systemd sees it: drop-ins, slices, the thermal target's wants. Pure text.

All of it is visible with ``systemctl cat`` and gone with the boot.
"""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from gpuwarden import names
from gpuwarden.config import Configuration
from gpuwarden.config.models import WorkersSettings
from gpuwarden.control.states import Card, PlanData, PlannedWorker
from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.priority import parse_priority
from gpuwarden.topology.model import NO_NODE, Topology

DROP_IN_NAME = "50-placement.conf"
# What systemd itself is asked for, to find drop-ins and slices of ours that are no longer planned.
OWNED_PATTERNS = (
    f"medgemma-worker@*.service.d/{DROP_IN_NAME}",
    "medgemma-workers-gpu*.slice",
    f"medgemma-thermal@*.service.d/{DROP_IN_NAME}",
    f"{names.THERMAL_TARGET}.d/{DROP_IN_NAME}",
)

# NVIDIA's character devices have major 195, /dev/nvidiactl is minor 255 (the driver's nv.h).
# /dev/char/MAJOR:MINOR is allowed by number, so that a node that isn't there yet fails nothing;
# nvidia-uvm's major is dynamic: its name in /proc/devices.
NVIDIA_MAJOR = 195
NVIDIA_CONTROL_MINOR = 255

CHILDREN_GRACE_SECONDS = 5  # after the drain, before the cgroup is killed
STOP_MARGIN_SECONDS = 5
# The worker's own fallback (gpuwarden.worker.priority): weighs about ten normal threads, of which
# there are only the worker's own on its CPUs' share.
FALLBACK_NICE = -10
# Each library of the model's would else start a thread for every CPU of the machine.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
_HEAD = "# Written by medgemma-numa.service from /etc/gpuwarden: changes here are lost.\n"


def unit_files(
    plan: PlanData, configuration: Configuration, topology: Topology
) -> dict[PurePosixPath, str]:
    """Every file of the plan, by its path below systemd's unit directory."""
    cards = {card.index: card for card in plan.cards}
    files = {
        PurePosixPath(f"{names.THERMAL_TARGET}.d", DROP_IN_NAME): thermal_target_text(plan.cards)
    }
    for card in plan.cards:
        path = PurePosixPath(f"{names.thermal_unit(card.index)}.d", DROP_IN_NAME)
        files[path] = thermal_guard_text(card)
    for worker in plan.workers:
        path = PurePosixPath(f"{names.worker_unit(worker.number)}.d", DROP_IN_NAME)
        files[path] = worker_text(worker, cards[worker.gpu_index], configuration, topology)
    for index in sorted({worker.gpu_index for worker in plan.workers}):
        workers = [worker for worker in plan.workers if worker.gpu_index == index]
        path = PurePosixPath(names.gpu_slice(index))
        files[path] = slice_text(workers, configuration, topology)
    return files


def worker_text(
    worker: PlannedWorker, card: Card, configuration: Configuration, topology: Topology
) -> str:
    """The drop-in of one worker."""
    lines = [
        f"# {' '.join(card.name.split())} at {card.pci_address}",
        "[Service]",
        f"Slice={names.gpu_slice(worker.gpu_index)}",
        *_cpu_lines(worker, topology),
        *_memory_node_lines(worker, configuration.placement.memory_policy, topology),
        *_priority_lines(worker.inference_priority),
        f"Environment=CUDA_VISIBLE_DEVICES={worker.gpu_uuid}",
        *_device_lines(card),
        *_limit_lines(worker, configuration.workers),
        *_timeout_lines(configuration.workers),
    ]
    return _HEAD + "\n".join(lines) + "\n"


def slice_text(
    workers: Sequence[PlannedWorker], configuration: Configuration, topology: Topology
) -> str:
    """The slice of one card's workers: their CPUs together, and the sum of their memory."""
    index = workers[0].gpu_index
    cpus = frozenset().union(*(parse_cpu_list(worker.cpus) for worker in workers))
    lines = [
        "[Unit]",
        f"Description=gpuwarden model workers of GPU {index}",
        "",
        "[Slice]",
        # The sum, so that it can never bind before a worker's own limit does.
        f"MemoryMax={sum(worker.memory_max_bytes for worker in workers)}",
    ]
    if cpus:
        lines.append(f"AllowedCPUs={format_cpu_list(cpus)}")
    node = workers[0].numa_node
    # Only with bind: on a slice it would turn a preference into a hard bind.
    if configuration.placement.memory_policy == "bind" and node in topology.memory_nodes:
        lines.append(f"AllowedMemoryNodes={node}")
    return _HEAD + "\n".join(lines) + "\n"


def thermal_target_text(cards: Iterable[Card]) -> str:
    """The wants of the thermal target: one guard a card, a missing one's too (it says `lost`)."""
    wants = "".join(f"Wants={names.thermal_unit(card.index)}\n" for card in cards)
    return f"{_HEAD}[Unit]\n{wants}"


def thermal_guard_text(card: Card) -> str:
    """The drop-in of a card's guard: its card's devices alone, so that no neighbour can hang it."""
    return _HEAD + "\n".join(["[Service]", "DeviceAllow=", *_device_lines(card)]) + "\n"


def stop_timeout_seconds(drain_seconds: float) -> int:
    """How long systemd waits for a worker's stop: its drain, its children's grace, a margin."""
    return -int(-(drain_seconds + CHILDREN_GRACE_SECONDS + STOP_MARGIN_SECONDS) // 1)


def _cpu_lines(worker: PlannedWorker, topology: Topology) -> list[str]:
    if not worker.cpus:
        return []
    cpus = parse_cpu_list(worker.cpus)
    # One thread a core: the arithmetic units of a core are shared by its siblings.
    threads = len(topology.cores(cpus))
    variables = " ".join(f"{name}={threads}" for name in THREAD_VARIABLES)
    return [f"CPUAffinity={worker.cpus}", f"Environment={variables}"]


def _memory_node_lines(worker: PlannedWorker, policy: str, topology: Topology) -> list[str]:
    """Nothing on a node without memory: the kernel would refuse the start."""
    node = worker.numa_node
    if policy == "none" or node == NO_NODE or node not in topology.memory_nodes:
        return []
    return [f"NUMAPolicy={policy}", f"NUMAMask={node}"]


def _priority_lines(priority: str) -> list[str]:
    """What lets the worker raise its GPU thread itself, without any capability."""
    realtime = parse_priority(priority)
    if realtime is None:
        return []
    return [
        "# The worker raises its GPU thread alone, and no higher than this.",
        f"LimitRTPRIO={realtime}",
        "RestrictRealtime=no",
        "# What it takes where the kernel refuses a real-time policy.",
        f"LimitNICE={FALLBACK_NICE}",
    ]


def _device_lines(card: Card) -> list[str]:
    lines = [
        "DevicePolicy=closed",
        f"DeviceAllow=/dev/char/{NVIDIA_MAJOR}:{NVIDIA_CONTROL_MINOR} rw",
        "DeviceAllow=char-nvidia-uvm rw",
    ]
    if card.minor is not None:
        lines.insert(1, f"DeviceAllow=/dev/char/{NVIDIA_MAJOR}:{card.minor} rw")
    return lines


def _limit_lines(worker: PlannedWorker, workers: WorkersSettings) -> list[str]:
    return [
        f"MemoryMax={worker.memory_max_bytes}",
        "MemorySwapMax=0",
        f"TasksMax={workers.tasks_max}",
    ]


def _timeout_lines(workers: WorkersSettings) -> list[str]:
    return [
        f"TimeoutStartSec={-int(-workers.load_timeout_seconds // 1)}",
        f"TimeoutStopSec={stop_timeout_seconds(workers.drain_seconds)}",
    ]
