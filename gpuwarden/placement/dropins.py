# SPDX-License-Identifier: Apache-2.0
"""The plan as systemd sees it: drop-ins, slices, the thermal target's wants. Pure text.

All of it is visible with ``systemctl cat`` and gone with the boot.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from gpuwarden import names
from gpuwarden.config import Configuration
from gpuwarden.config.models import WorkersSettings
from gpuwarden.control.states import Card, PlanData, PlannedWorker
from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.priority import parse_priority
from gpuwarden.topology.model import Topology

DROP_IN_NAME = "50-placement.conf"
# What systemd itself is asked for, to find drop-ins and slices of ours that are no longer planned.
OWNED_PATTERNS = (
    f"medgemma-worker@*.service.d/{DROP_IN_NAME}",
    "medgemma-workers-gpu*.slice",
    f"medgemma-thermal@*.service.d/{DROP_IN_NAME}",
    f"{names.THERMAL_TARGET}.d/{DROP_IN_NAME}",
    f"medgemma-scan@*.service.d/{DROP_IN_NAME}",
    f"{names.SCAN_TARGET}.d/{DROP_IN_NAME}",
)
# The services that each card has of its own, by the target that wants them all.
CARD_SERVICES = {names.THERMAL_TARGET: names.thermal_unit, names.SCAN_TARGET: names.scan_unit}
# All that runs beside our workers, but for the kernel's own threads, with the section of its kind.
HOST_DROP_IN_NAME = "50-gpuwarden-housekeeping.conf"
HOST_UNITS = {
    "system.slice": "Slice",
    "user.slice": "Slice",
    "machine.slice": "Slice",
    "init.scope": "Scope",
    names.CONTROL_SLICE: "Slice",
}
# What a worker's process can be asked for: by which plan and settings it was started.
REVISION_VARIABLE = "GPUWARDEN_PLACEMENT_REVISION"

# NVIDIA's character devices have major 195, /dev/nvidiactl is minor 255 (the driver's nv.h).
# /dev/char/MAJOR:MINOR is allowed by number, so that a node that isn't there yet fails nothing;
# nvidia-uvm's major is dynamic: its name in /proc/devices.
NVIDIA_MAJOR = 195
NVIDIA_CONTROL_MINOR = 255

WEIGHT_PER_WORKER = 100  # systemd's default for a unit
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
    files = {}
    for target, unit in CARD_SERVICES.items():
        files[PurePosixPath(f"{target}.d", DROP_IN_NAME)] = target_text(map(unit, cards))
        for card in plan.cards:
            files[PurePosixPath(f"{unit(card.index)}.d", DROP_IN_NAME)] = card_service_text(card)
    for worker in plan.workers:
        path = PurePosixPath(f"{names.worker_unit(worker.number)}.d", DROP_IN_NAME)
        files[path] = worker_text(worker, cards[worker.gpu_index], configuration, topology)
    for name, workers in by_slice(plan.workers).items():
        files[PurePosixPath(name)] = slice_text(workers)
    return files | host_files(plan)


def by_slice(workers: Iterable[PlannedWorker]) -> dict[str, list[PlannedWorker]]:
    """The workers by the slice that they run in."""
    slices: dict[str, list[PlannedWorker]] = {}
    for worker in workers:
        slices.setdefault(slice_of(worker), []).append(worker)
    return slices


def slice_of(worker: PlannedWorker) -> str:
    """The slice that a worker runs in."""
    return worker.slice or names.gpu_slice(worker.gpu_index)


def host_files(plan: PlanData) -> dict[PurePosixPath, str]:
    """What keeps the rest of the host on the housekeeping CPUs, where that is asked for."""
    if not plan.housekeeping_exclusive:
        return {}
    return {
        PurePosixPath(f"{unit}.d", HOST_DROP_IN_NAME): host_text(section, plan.housekeeping_cpus)
        for unit, section in HOST_UNITS.items()
    }


def host_text(section: str, cpus: str) -> str:
    """The drop-in of one of the host's units; the empty line forgets what others have given it."""
    why = "# [placement] housekeeping_exclusive = true\n"
    return f"{_HEAD}{why}[{section}]\nAllowedCPUs=\nAllowedCPUs={cpus}\n"


def with_revisions(plan: PlanData, configuration: Configuration, topology: Topology) -> PlanData:
    """The plan with each worker's revision: the same as long as nothing asks for its restart."""
    cards = {card.index: card for card in plan.cards}
    settings = f"{configuration.workers.model_dump_json()}{configuration.log.level}"

    def revised(worker: PlannedWorker) -> PlannedWorker:
        bare = worker.model_copy(update={"revision": "", "slice": ""})
        text = worker_text(bare, cards[worker.gpu_index], configuration, topology)
        revision = hashlib.sha256(f"{text}{settings}".encode()).hexdigest()[:16]
        return worker.model_copy(update={"revision": revision})

    return plan.model_copy(update={"workers": [revised(worker) for worker in plan.workers]})


def worker_text(
    worker: PlannedWorker, card: Card, configuration: Configuration, topology: Topology
) -> str:
    """The drop-in of one worker."""
    lines = [
        f"# {' '.join(card.name.split())} at {card.pci_address}",
        "[Service]",
        f"Slice={slice_of(worker)}",
        *_cpu_lines(worker, topology),
        *_memory_node_lines(worker),
        *_priority_lines(worker.inference_priority),
        f"Environment=CUDA_VISIBLE_DEVICES={worker.visible_device or worker.gpu_uuid}",
        *_device_lines(card),
        *_network_lines(configuration.workers),
        *_limit_lines(worker, configuration.workers),
        *_timeout_lines(configuration.workers),
    ]
    if worker.revision:
        lines.append(f"Environment={REVISION_VARIABLE}={worker.revision}")
    return _HEAD + "\n".join(lines) + "\n"


def slice_text(workers: Sequence[PlannedWorker]) -> str:
    """The slice of one card's workers: their CPUs together, and the sum of their memory."""
    index = workers[0].gpu_index
    cpus = frozenset().union(*(parse_cpu_list(worker.cpus) for worker in workers))
    # Where cards share CPUs, each worker counts the same, whatever its card.
    weight = WEIGHT_PER_WORKER * len(workers)
    lines = [
        "[Unit]",
        f"Description=gpuwarden model workers of GPU {index}",
        "",
        "[Slice]",
        f"CPUWeight={weight}",
        f"IOWeight={weight}",
        # The sum, so that it can never bind before a worker's own limit does.
        f"MemoryMax={sum(worker.memory_max_bytes for worker in workers)}",
    ]
    if cpus:
        lines.append(f"AllowedCPUs={format_cpu_list(cpus)}")
    nodes = {worker.memory_node for worker in workers if worker.memory_policy == "bind"}
    # Only with bind: on a slice it would turn a preference into a hard bind.
    if nodes:
        lines.append(f"AllowedMemoryNodes={format_cpu_list(nodes)}")
    return _HEAD + "\n".join(lines) + "\n"


def target_text(units: Iterable[str]) -> str:
    """The wants of a target: one service a card, a missing one's too (it says `lost`)."""
    wants = "".join(f"Wants={unit}\n" for unit in units)
    return f"{_HEAD}[Unit]\n{wants}"


def card_service_text(card: Card) -> str:
    """A card's own service: its card's devices alone, so that no neighbour can hang it."""
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


def _memory_node_lines(worker: PlannedWorker) -> list[str]:
    if worker.memory_policy == "none":
        return []
    return [f"NUMAPolicy={worker.memory_policy}", f"NUMAMask={worker.memory_node}"]


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
    if card.mig_uuids:
        # CUDA opens the nodes of its instance (/dev/nvidia-caps), whose modes the driver guards.
        lines.append("DeviceAllow=char-nvidia-caps r")
    return lines


def _network_lines(workers: WorkersSettings) -> list[str]:
    """What a server that the worker runs needs to be asked; nothing leaves this host."""
    if workers.network == "none":
        return []
    own = [] if workers.network == "private" else ["PrivateNetwork=no"]
    return [
        *own,
        # Netlink: libraries look up the interfaces that they may listen on.
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK",
        "IPAddressAllow=localhost",
    ]


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
