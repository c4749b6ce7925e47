# SPDX-License-Identifier: Apache-2.0
"""Which worker runs where. Pure: cards, topology and configuration in, the plan out.

Never fails: where it can't do what was asked it does the next best and says so in a warning.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpuwarden.config import Configuration, digest
from gpuwarden.control.states import Card, PlanData, PlannedNode, PlannedWorker
from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.placement.priority import has_own_cpus, plan_priorities
from gpuwarden.placement.share import Cpus, deal, named
from gpuwarden.topology.model import EVERYTHING, NO_NODE, Bounds, Topology

NO_PIN: Cpus = frozenset()


@dataclass(frozen=True, slots=True)
class Driver:
    """What is known of the driver; ``reason`` says why there are no cards, if there are none."""

    version: str | None
    simulated: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What there is to plan on.

    :ivar machine: all that the kernel has.
    :ivar host: what the cpuset of the whole system leaves of it: a container has less.
    :ivar workers: what the cpusets of the workers' slices leave: an administrator's AllowedCPUs=.
    """

    machine: Topology
    host: Bounds = EVERYTHING
    workers: Bounds = EVERYTHING


@dataclass(frozen=True, slots=True)
class _Seat:
    """A worker to be placed."""

    number: int
    position: int
    card: Card


def make_plan(
    cards: Iterable[Card],
    ground: Ground | Topology,
    configuration: Configuration,
    driver: Driver,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> PlanData:
    """The plan for these cards on this machine. The order of ``cards`` doesn't matter.

    :param ground: a bare topology is one that nothing restricts.
    :param warnings: what was already found doubtful; they are kept in front.
    :param notes: what was already decided.
    """
    ground = Ground(ground) if isinstance(ground, Topology) else ground
    host = ground.machine.restricted_to(ground.host)
    usable = host.restricted_to(ground.workers)
    ordered = sorted(cards, key=lambda card: card.index)
    said = [*warnings, *(_absence(card) for card in ordered if not card.present)]
    housekeeping = choose_housekeeping(configuration.placement.housekeeping_cpus, host, said)
    decided = [*notes, *_restrictions(ground.machine, host, usable)]
    workers = _place(ordered, usable, housekeeping, configuration, said, decided)
    if configuration.placement.housekeeping_exclusive:
        said += _exclusive_doubts(configuration.placement.housekeeping_cpus, housekeeping, host)
    return PlanData(
        driver_version=driver.version,
        simulated=driver.simulated,
        cards=ordered,
        workers=workers,
        housekeeping_cpus=format_cpu_list(housekeeping),
        configuration_digest=digest(configuration),
        machine=ground.machine.summary(),
        nodes=_nodes(host),
        worker_cpus=format_cpu_list(usable.online_cpus),
        housekeeping_exclusive=configuration.placement.housekeeping_exclusive,
        notes=decided,
        warnings=said,
        reason=_reason(driver, ordered, workers),
    )


def choose_housekeeping(configured: str, topology: Topology, warnings: list[str]) -> Cpus:
    """The CPUs for the system and our own daemons: as configured, else the first CPU's core.

    The first, because the kernel's own interrupts and timers land there. Never empty.
    """
    wished = parse_cpu_list(configured)
    there = wished & topology.online_cpus
    if wished - there:
        warnings.append(
            f"housekeeping_cpus names CPUs that are not online: {format_cpu_list(wished - there)}; "
            f"online are {format_cpu_list(topology.online_cpus)}"
        )
    return there or topology.core_of(min(topology.online_cpus))


def _place(
    cards: Sequence[Card],
    usable: Topology,
    housekeeping: Cpus,
    configuration: Configuration,
    warnings: list[str],
    notes: list[str],
) -> list[PlannedWorker]:
    """Every worker of these cards, by number."""
    seats = _seats(cards, configuration.workers.workers_per_gpu, warnings)
    cpu_nodes = {seat.number: _cpu_node(seat.card.numa_node, usable) for seat in seats}
    _tell_strays(seats, cpu_nodes, warnings)
    per_worker = configuration.workers.cpus_per_worker
    pins = _pin_all(cpu_nodes, usable, housekeeping, per_worker, warnings)
    wanted = configuration.workers.inference_priority
    priorities = plan_priorities(wanted, pins, housekeeping, notes)
    workers = [
        _worker(seat, cpu_nodes[seat.number], pins, usable, configuration).model_copy(
            update={
                "has_own_cpus": has_own_cpus(seat.number, pins, housekeeping),
                "inference_priority": priorities[seat.number],
            }
        )
        for seat in seats
    ]
    warnings += _memory_strays(workers, cards)
    return workers


def _seats(cards: Sequence[Card], workers_per_gpu: int, warnings: list[str]) -> list[_Seat]:
    """Worker N = index x workers_per_gpu + k, for the cards that are there."""
    for card in cards:
        instances = len(card.mig_uuids)
        if card.present and instances and instances != workers_per_gpu:
            fewer = "some of them share one" if instances < workers_per_gpu else "the rest is idle"
            warnings.append(
                f"GPU {card.index} is divided into {instances} MIG instances for "
                f"{workers_per_gpu} workers (workers_per_gpu): {fewer}"
            )
    return [
        _Seat(card.index * workers_per_gpu + position, position, card)
        for card in cards
        if card.present
        for position in range(workers_per_gpu)
    ]


def _cpu_node(node: int, usable: Topology) -> int:
    """Whose CPUs a worker gets: its card's node's, else the nearest node's that has any for it."""
    nearest = usable.nearest(node, [each for each, cpus in usable.node_cpus.items() if cpus])
    return NO_NODE if nearest is None else nearest


def _tell_strays(seats: Sequence[_Seat], cpu_nodes: Mapping[int, int], warnings: list[str]) -> None:
    """Workers that are not on their card's node, by node."""
    for node in sorted({seat.card.numa_node for seat in seats}):
        numbers = [seat.number for seat in seats if seat.card.numa_node == node]
        found = cpu_nodes[numbers[0]]
        if node == NO_NODE:
            warnings.append(
                f"{named(numbers)} not pinned: neither the kernel nor the driver knows the NUMA "
                "node of the card"
            )
        elif found == NO_NODE:
            warnings.append(f"{named(numbers)} not pinned: there is no NUMA node {node}")
        elif found != node:
            warnings.append(
                f"NUMA node {node} has no CPU that workers may use: {named(numbers)} on the "
                f"nearest node that has, {found}"
            )


def _pin_all(
    cpu_nodes: Mapping[int, int],
    usable: Topology,
    housekeeping: Cpus,
    cpus_per_worker: int,
    warnings: list[str],
) -> dict[int, Cpus]:
    """CPUs of each worker by number, node by node."""
    pins: dict[int, Cpus] = {}
    for node in sorted(set(cpu_nodes.values())):
        numbers = [number for number, found in cpu_nodes.items() if found == node]
        if node == NO_NODE:
            pins.update(dict.fromkeys(numbers, NO_PIN))
            continue
        cpus = usable.node_cpus[node]
        free = cpus - housekeeping
        if not free:
            warnings.append(
                f"NUMA node {node} has no CPU besides the housekeeping ones "
                f"({format_cpu_list(cpus)}): its workers share them with the system"
            )
        cores = usable.cores(free or cpus)
        pins.update(deal(node, cores, numbers, cpus_per_worker, warnings))
    return pins


def _worker(
    seat: _Seat,
    cpu_node: int,
    pins: Mapping[int, Cpus],
    usable: Topology,
    configuration: Configuration,
) -> PlannedWorker:
    """Where it runs; who else is there, and what follows from it, is the caller's."""
    cpus = pins[seat.number]
    wished = configuration.placement.memory_policy
    # Near the card, not near the CPUs, should the two differ: the card reads it all.
    nearest = usable.nearest(seat.card.numa_node, usable.memory_nodes) if cpus else None
    memory_node = NO_NODE if nearest is None or wished == "none" else nearest
    instances = seat.card.mig_uuids or [seat.card.uuid]
    return PlannedWorker(
        number=seat.number,
        gpu_index=seat.card.index,
        gpu_uuid=seat.card.uuid,
        numa_node=cpu_node,
        cpus=format_cpu_list(cpus),
        memory_max_bytes=configuration.workers.memory_max_bytes,
        memory_node=memory_node,
        memory_policy="none" if memory_node == NO_NODE else wished,
        visible_device=instances[seat.position % len(instances)],
    )


def _memory_strays(workers: Sequence[PlannedWorker], cards: Sequence[Card]) -> list[str]:
    nodes = {card.index: card.numa_node for card in cards}
    far = [w for w in workers if w.memory_node not in (NO_NODE, nodes[w.gpu_index])]
    return [
        f"NUMA node {nodes[worker.gpu_index]} has no memory that workers may use: worker "
        f"{worker.number} takes that of the nearest node that has, {worker.memory_node}"
        for worker in far
    ]


def _restrictions(machine: Topology, host: Topology, usable: Topology) -> list[str]:
    """What cpusets have taken away, in words."""
    found = []
    for whole, part, whom in ((machine, host, "this system"), (host, usable, "workers")):
        if whole.online_cpus != part.online_cpus:
            found.append(
                f"a cpuset leaves {whom} CPUs {format_cpu_list(part.online_cpus)} "
                f"of {format_cpu_list(whole.online_cpus)}"
            )
        if whole.memory_nodes != part.memory_nodes:
            found.append(
                f"a cpuset leaves {whom} the memory of NUMA nodes "
                f"{format_cpu_list(part.memory_nodes)} of {format_cpu_list(whole.memory_nodes)}"
            )
    return found


def _exclusive_doubts(configured: str, housekeeping: Cpus, host: Topology) -> list[str]:
    if configured or len(host.online_cpus) <= len(housekeeping):
        return []
    return [
        "housekeeping_exclusive without housekeeping_cpus: the rest of this host has "
        f"{len(housekeeping)} of {len(host.online_cpus)} CPUs ({format_cpu_list(housekeeping)})"
    ]


def _nodes(topology: Topology) -> list[PlannedNode]:
    return [
        PlannedNode(
            number=node,
            socket=topology.sockets.get(min(cpus)) if cpus else None,
            cores=[format_cpu_list(core) for core in topology.cores(cpus)],
            has_memory=node in topology.memory_nodes,
        )
        for node, cpus in sorted(topology.node_cpus.items())
    ]


def _absence(card: Card) -> str:
    return (
        f"GPU {card.index} ({card.uuid} at {card.pci_address}) is not there and keeps its index; "
        "if it was taken out for good, delete /var/lib/gpuwarden/cards.json and reboot"
    )


def _reason(driver: Driver, cards: Sequence[Card], workers: Sequence[PlannedWorker]) -> str:
    """Why there is nothing to run, in words for the operator; empty where there is."""
    if workers:
        return ""
    if driver.reason:
        return driver.reason
    if cards:
        return "none of the known cards answers: see nvidia-smi -L and journalctl -k"
    return "the driver runs but shows no card: see lspci -d 10de: and journalctl -k"
