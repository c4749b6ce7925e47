"""medgemma-numa: looks at the node, plans, writes the plan down, once.

Running it again changes nothing unless the node or the configuration did.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden import names
from gpuwarden.config import Configuration, ConfigurationError, effective_configuration
from gpuwarden.control.snapshot import SnapshotError, SnapshotWriter, boot_id, read_snapshot
from gpuwarden.control.states import Card, PlanData
from gpuwarden.nvml.card import CardIdentity
from gpuwarden.nvml.library import choose_library
from gpuwarden.placement.cards import CardRecord, fix_indices, read_record, write_record
from gpuwarden.placement.dropins import unit_files
from gpuwarden.placement.enumerate import EnumerationError, Listing, list_cards_in_child
from gpuwarden.placement.plan import Driver, make_plan
from gpuwarden.placement.units import UnitError, install
from gpuwarden.systemd.command import SystemctlError, reload_manager
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.topology.model import Topology
from gpuwarden.topology.sysfs import SYSFS, pci_numa_node, read_topology

log = logging.getLogger(__name__)

COMPONENT = "placement"
# A plan holds until the next one or the next boot: a hundred years.
PLAN_VALID_MILLISECONDS = 100 * 365 * 24 * 3600 * 1000
CONFIGURATION_REFUSED = "the configuration was refused: "


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    load: Callable[[], Configuration] = effective_configuration
    unit_directory: Path = Path("/run/systemd/system")
    plan_file: Path = names.PLAN_FILE
    cards_file: Path = names.CARDS_FILE
    sysfs: Path = SYSFS

    @property
    def reload_pending(self) -> Path:
        """There while systemd has yet to read files that were written."""
        return self.plan_file.with_name("reload-pending")


@dataclass
class Findings:
    """The cards and the driver as found, and what is doubtful about them."""

    cards: list[Card]
    driver: Driver
    warnings: list[str] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Plan the placement. Exit status 0 also without cards; 1 if the plan can't be written."""
    set_up_logging("info")
    if argv:
        log.error("placement takes no arguments, found %s", " ".join(argv))
        return 2
    return run(Places())


def run(
    places: Places,
    ask: Callable[[], Listing] = list_cards_in_child,
    reload_units: Callable[[], None] = reload_manager,
) -> int:
    """The whole service, once."""
    try:
        configuration, warnings = (
            places.load(),
            list[str](),
        )
    except ConfigurationError as error:
        problems = "; ".join(str(error).splitlines())
        if _keep_last_plan(places, problems):
            return 0
        configuration = Configuration()
        warnings = [f"{CONFIGURATION_REFUSED}{problems}; the workers are placed by the defaults"]
    try:
        topology = read_topology(places.sysfs)
        findings = find_cards(places, ask)
        warnings += findings.warnings
        plan = make_plan(findings.cards, topology, configuration, findings.driver, warnings)
        write_down(plan, configuration, topology, places, reload_units)
    except (OSError, ValueError, UnitError, SystemctlError) as error:
        log.error("the placement plan can't be made or written: %s", error)
        return 1
    tell(plan)
    return 0


def find_cards(places: Places, ask: Callable[[], Listing]) -> Findings:
    """The cards with their indices: from the driver, or as last known if it hangs."""
    library = choose_library()
    warnings = [library.note] if library.note else []
    known = _known_cards(places.cards_file, library.simulated, warnings)
    known_cards = known.cards if known else []
    try:
        listing = ask()
    except EnumerationError as error:
        driver = Driver(None, library.simulated, str(error))
        if error.hung and known_cards:
            warnings.append(f"{error}; the cards are taken as last known")
            return Findings(known_cards, driver, warnings)
        gone = [card.model_copy(update={"present": False}) for card in known_cards]
        return Findings(gone, driver, warnings)
    warnings += listing.faults
    found = [_located(card, places.sysfs) for card in listing.cards]
    same_boot = known is not None and known.boot_id == boot_id()
    cards = fix_indices(found, known_cards, same_boot=same_boot)
    record = CardRecord(boot_id=boot_id(), simulated=library.simulated, cards=cards)
    try:
        write_record(places.cards_file, record)
    except OSError as error:
        warnings.append(f"{places.cards_file} can't be written: {error.strerror}")
    return Findings(cards, Driver(listing.driver_version, library.simulated), warnings)


def write_down(
    plan: PlanData,
    configuration: Configuration,
    topology: Topology,
    places: Places,
    reload_units: Callable[[], None],
) -> None:
    """Units first, then the plan, so that whoever reads the plan finds its units in force.

    :raises UnitError: systemd's files can't be written.
    :raises SystemctlError: systemd doesn't read them.
    :raises OSError: the plan can't be published.
    """
    pending = places.reload_pending
    was_pending = pending.exists()
    pending.touch()
    changed = install(places.unit_directory, unit_files(plan, configuration, topology))
    if changed or was_pending:
        reload_units()
        log.info("systemd reads again: %s", ", ".join(changed) or "files of an earlier run")
    pending.unlink()
    _publish(plan, places)


def tell(plan: PlanData) -> None:
    """The plan in a few lines of the journal."""
    if plan.simulated:
        log.warning("SIMULATED: these cards are the simulator's")
    for warning in plan.warnings:
        log.warning("%s", warning)
    for worker in plan.workers:
        place = f"NUMA node {worker.numa_node}, CPUs {worker.cpus}" if worker.cpus else "not pinned"
        log.info("worker %d: GPU %d, %s", worker.number, worker.gpu_index, place)
    if plan.reason:
        log.warning("no workers: %s", plan.reason)


def _keep_last_plan(places: Places, problems: str) -> bool:
    """Leave the plan of this boot in force, if there is one, and have it say why."""
    try:
        snapshot = read_snapshot(places.plan_file, PlanData)
    except SnapshotError:
        return False
    if snapshot.boot_id != boot_id():
        return False
    warnings = [w for w in snapshot.data.warnings if not w.startswith(CONFIGURATION_REFUSED)]
    warnings.append(f"{CONFIGURATION_REFUSED}{problems}; the last good plan holds")
    log.error("%s", warnings[-1])
    try:
        _publish(snapshot.data.model_copy(update={"warnings": warnings}), places)
    except OSError as error:
        log.error("%s: %s", places.plan_file, error.strerror)
    return True


def _publish(plan: PlanData, places: Places) -> None:
    SnapshotWriter(places.plan_file, COMPONENT, PLAN_VALID_MILLISECONDS).publish(plan)


def _known_cards(path: Path, simulated: bool, warnings: list[str]) -> CardRecord | None:
    try:
        record = read_record(path)
    except ValueError as error:
        warnings.append(f"the record of the cards can't be read and is begun anew: {error}")
        return None
    # The simulator's cards must not haunt a node that got a real driver, nor the other way round.
    return record if record and record.simulated == simulated else None


def _located(card: CardIdentity, sysfs: Path) -> Card:
    return Card(
        index=card.index,
        uuid=card.uuid,
        name=card.name,
        pci_address=card.pci_address,
        minor=card.minor,
        numa_node=pci_numa_node(card.pci_address, sysfs),
        present=True,
    )
