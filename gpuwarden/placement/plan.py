"""Which worker runs where. Pure: cards, topology and configuration in, the plan out.

Never fails: where it can't do what was asked it does the next best and says so in a warning.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpuwarden.config import Configuration, digest
from gpuwarden.control.states import Card, PlanData, PlannedWorker
from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.placement.priority import plan_priorities
from gpuwarden.topology.model import NO_NODE, Topology

Cpus = frozenset[int]
NO_PIN: Cpus = frozenset()


@dataclass(frozen=True, slots=True)
class Driver:
    """What is known of the driver; ``reason`` says why there are no cards, if there are none."""

    version: str | None
    simulated: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Seat:
    """A worker to be placed."""

    number: int
    card: Card


def make_plan(
    cards: Iterable[Card],
    topology: Topology,
    configuration: Configuration,
    driver: Driver,
    warnings: Sequence[str] = (),
) -> PlanData:
    """The plan for these cards on this machine. The order of ``cards`` doesn't matter.

    :param warnings: what was already found doubtful; they are kept in front.
    """
    ordered = sorted(cards, key=lambda card: card.index)
    said = [*warnings, *(_absence(card) for card in ordered if not card.present)]
    housekeeping = choose_housekeeping(configuration.placement.housekeeping_cpus, topology, said)
    seats = _seats(ordered, configuration.workers.workers_per_gpu)
    pins = _pin_all(seats, topology, housekeeping, configuration.workers.cpus_per_worker, said)
    wanted = configuration.workers.inference_priority
    priorities = plan_priorities(wanted, pins, housekeeping, said)
    workers = [
        PlannedWorker(
            number=seat.number,
            gpu_index=seat.card.index,
            gpu_uuid=seat.card.uuid,
            numa_node=seat.card.numa_node if pins[seat.number] else NO_NODE,
            cpus=format_cpu_list(pins[seat.number]),
            memory_max_bytes=configuration.workers.memory_max_bytes,
            inference_priority=priorities[seat.number],
        )
        for seat in seats
    ]
    return PlanData(
        driver_version=driver.version,
        simulated=driver.simulated,
        cards=ordered,
        workers=workers,
        housekeeping_cpus=format_cpu_list(housekeeping),
        configuration_digest=digest(configuration),
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


def _seats(cards: Sequence[Card], workers_per_gpu: int) -> list[_Seat]:
    """Worker N = index x workers_per_gpu + k, for the cards that are there."""
    return [
        _Seat(card.index * workers_per_gpu + position, card)
        for card in cards
        if card.present
        for position in range(workers_per_gpu)
    ]


def _pin_all(
    seats: Sequence[_Seat],
    topology: Topology,
    housekeeping: Cpus,
    cpus_per_worker: int,
    warnings: list[str],
) -> dict[int, Cpus]:
    """CPUs of each worker by number, node by node."""
    pins: dict[int, Cpus] = {}
    for node in sorted({seat.card.numa_node for seat in seats}):
        numbers = [seat.number for seat in seats if seat.card.numa_node == node]
        cpus = _node_cpus(node, topology, housekeeping, numbers, warnings)
        cores = topology.cores(cpus)
        pins.update(_share(node, cores, numbers, cpus_per_worker, warnings))
    return pins


def _node_cpus(
    node: int,
    topology: Topology,
    housekeeping: Cpus,
    numbers: Sequence[int],
    warnings: list[str],
) -> Cpus:
    """What the node has for its workers; nothing where they can't be pinned."""
    if node == NO_NODE:
        warnings.append(
            f"{_named(numbers)} not pinned: the kernel doesn't know the NUMA node of the card"
        )
        return NO_PIN
    cpus = topology.node_cpus.get(node, NO_PIN)
    if not cpus:
        warnings.append(f"{_named(numbers)} not pinned: NUMA node {node} has no online CPU")
        return NO_PIN
    free = cpus - housekeeping
    if not free:
        warnings.append(
            f"NUMA node {node} has no CPU besides the housekeeping ones "
            f"({format_cpu_list(cpus)}): its workers share them with the system"
        )
    return free or cpus


def _share(
    node: int,
    cores: Sequence[Cpus],
    numbers: Sequence[int],
    cpus_per_worker: int,
    warnings: list[str],
) -> dict[int, Cpus]:
    """The node's cores dealt out to its workers, whole and side by side."""
    if not cores:
        return dict.fromkeys(numbers, NO_PIN)
    if len(cores) < len(numbers):
        together = frozenset().union(*cores)
        warnings.append(
            f"NUMA node {node} has {len(cores)} free cores for {len(numbers)} workers: "
            f"they share CPUs {format_cpu_list(together)}"
        )
        return dict.fromkeys(numbers, together)
    least, over = divmod(len(cores), len(numbers))
    shares: dict[int, Cpus] = {}
    start = 0
    for position, number in enumerate(sorted(numbers)):
        size = least + (position < over)
        shares[number] = _limited(cores[start : start + size], cpus_per_worker, number, warnings)
        start += size
    return shares


def _limited(cores: Sequence[Cpus], cpus_per_worker: int, number: int, warnings: list[str]) -> Cpus:
    """As many whole cores as give ``cpus_per_worker``, at most those that are this worker's."""
    taken: set[int] = set()
    for core in cores:
        if cpus_per_worker and len(taken) >= cpus_per_worker:
            break
        taken |= core
    if len(taken) < cpus_per_worker:
        warnings.append(
            f"worker {number} gets {len(taken)} CPUs, its fair share, "
            f"not the {cpus_per_worker} of cpus_per_worker"
        )
    return frozenset(taken)


def _named(numbers: Sequence[int]) -> str:
    words = ", ".join(str(number) for number in sorted(numbers))
    return f"worker {words} is" if len(numbers) == 1 else f"workers {words} are"


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
