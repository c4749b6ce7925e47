# SPDX-License-Identifier: Apache-2.0
"""medgemma-numa: looks at the node, plans, writes the plan down, once.

Running it again changes nothing unless the node or the configuration did.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.config import Configuration, ConfigurationError, effective_configuration
from gpuwarden.control.snapshot import SnapshotError, SnapshotWriter, boot_id, read_snapshot
from gpuwarden.control.states import PlanData, PlannedWorker
from gpuwarden.cpulist import format_cpu_list
from gpuwarden.placement.alive import read_alive
from gpuwarden.placement.dropins import unit_files, with_revisions
from gpuwarden.placement.enumerate import Listing, list_cards_in_child
from gpuwarden.placement.findings import find_cards, remember
from gpuwarden.placement.gentle import Alive, choose_slices, dated, spared
from gpuwarden.placement.ground import read_ground
from gpuwarden.placement.plan import Ground, make_plan
from gpuwarden.placement.units import (
    UnitError,
    holds_host,
    install,
    read_installed,
    remove_host_files,
    widen_host,
)
from gpuwarden.systemd.command import SystemctlError, reload_manager
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.topology.model import Topology
from gpuwarden.topology.sysfs import SYSFS, read_possible_cpus

log = logging.getLogger(__name__)

COMPONENT = "placement"
RELEASE_HOST = "release-host"
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
    ground: Callable[[Path], tuple[Ground, list[str]]] = read_ground
    alive: Callable[[], Alive] = read_alive

    @property
    def reload_pending(self) -> Path:
        """There while systemd has yet to read files that were written."""
        return self.plan_file.with_name("reload-pending")


def main(argv: list[str]) -> int:
    """Plan the placement, or let go of the host's other programs (``release-host``).

    Exit status 0 also without cards; 1 if what is to be written can't be.
    """
    set_up_logging("info")
    if argv == [RELEASE_HOST]:
        return let_go(Places())
    if argv:
        log.error("placement takes no argument but %s, found %s", RELEASE_HOST, " ".join(argv))
        return 2
    return run(Places())


def run(
    places: Places,
    ask: Callable[[], Listing] = list_cards_in_child,
    reload_units: Callable[[], None] = reload_manager,
) -> int:
    """The whole service, once."""
    warnings: list[str] = []
    try:
        configuration = places.load()
    except ConfigurationError as error:
        problems = "; ".join(str(error).splitlines())
        if _keep_last_plan(places, problems):
            return 0
        configuration = Configuration()
        warnings = [f"{CONFIGURATION_REFUSED}{problems}; the workers are placed by the defaults"]
    try:
        plan, topology = plan_now(places, configuration, warnings, ask, keep_cards=True)
        plan = write_down(plan, configuration, topology, places, reload_units)
    except (OSError, ValueError, UnitError, SystemctlError) as error:
        log.error("the placement plan can't be made or written: %s", error)
        return 1
    tell(plan)
    return 0


def plan_now(
    places: Places,
    configuration: Configuration,
    warnings: Sequence[str],
    ask: Callable[[], Listing],
    *,
    keep_cards: bool,
) -> tuple[PlanData, Topology]:
    """The plan for this node as it is now, and its topology.

    :param keep_cards: remember the cards' indices for later boots.
    :raises OSError: the kernel doesn't say what there is.
    :raises ValueError: what it says can't be read.
    """
    ground, doubts = places.ground(places.sysfs)
    findings = find_cards(places.cards_file, places.sysfs, ground.machine, ask)
    if keep_cards:
        remember(findings, places.cards_file)
    said = [*warnings, *doubts, *findings.warnings]
    plan = make_plan(findings.cards, ground, configuration, findings.driver, said, findings.notes)
    return with_revisions(plan, configuration, ground.machine), ground.machine


def let_go(places: Places, reload_units: Callable[[], None] = reload_manager) -> int:
    """Give the rest of the host all CPUs back; the workers' placement stays."""
    try:
        _release_host(places, reload_units)
    except (OSError, ValueError, UnitError, SystemctlError) as error:
        log.error("the rest of this host stays on the housekeeping CPUs: %s", error)
        return 1
    return 0


def _release_host(places: Places, reload_units: Callable[[], None]) -> None:
    if not holds_host(places.unit_directory):
        return
    widen_host(places.unit_directory, format_cpu_list(read_possible_cpus(places.sysfs)))
    reload_units()
    gone = remove_host_files(places.unit_directory)
    reload_units()
    log.info("the rest of this host has all CPUs again: %s", ", ".join(gone))


def write_down(
    plan: PlanData,
    configuration: Configuration,
    topology: Topology,
    places: Places,
    reload_units: Callable[[], None],
) -> PlanData:
    """Units first, then the plan, so that whoever reads the plan finds its units in force.

    :returns: the plan as it was published, with slices and times.
    :raises UnitError: systemd's files can't be written.
    :raises SystemctlError: systemd doesn't read them.
    :raises OSError: the plan can't be published.
    """
    pending = places.reload_pending
    was_pending = pending.exists()
    pending.touch()
    alive = places.alive()
    former = plan_of_this_boot(places.plan_file)
    installed = read_installed(places.unit_directory)
    plan = choose_slices(plan, {str(path): text for path, text in installed.items()}, alive)
    files = unit_files(plan, configuration, topology)
    changed = install(places.unit_directory, spared(files, installed, former, plan, alive))
    if changed or was_pending:
        reload_units()
        log.info("systemd reads again: %s", ", ".join(changed) or "files of an earlier run")
    if not plan.housekeeping_exclusive:
        _release_host(places, reload_units)
    pending.unlink()
    plan = dated(plan, former, time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
    _publish(plan, places)
    return plan


def plan_of_this_boot(path: Path) -> PlanData | None:
    """The plan in force; None where there is none of this boot."""
    try:
        snapshot = read_snapshot(path, PlanData)
    except SnapshotError:
        return None
    return snapshot.data if snapshot.boot_id == boot_id() else None


def tell(plan: PlanData) -> None:
    """The plan in a few lines of the journal."""
    if plan.simulated:
        log.warning("SIMULATED: these cards are the simulator's")
    for warning in plan.warnings:
        log.warning("%s", warning)
    for note in plan.notes:
        log.info("%s", note)
    for worker in plan.workers:
        log.info("worker %d: GPU %d, %s", worker.number, worker.gpu_index, _place(worker))
    if plan.reason:
        log.warning("no workers: %s", plan.reason)


def _place(worker: PlannedWorker) -> str:
    if not worker.cpus:
        return "not pinned"
    memory = (
        f", memory of node {worker.memory_node} {worker.memory_policy}"
        if worker.memory_policy != "none"
        else ""
    )
    return f"NUMA node {worker.numa_node}, CPUs {worker.cpus}{memory}"


def _keep_last_plan(places: Places, problems: str) -> bool:
    """Leave the plan of this boot in force, if there is one, and have it say why."""
    plan = plan_of_this_boot(places.plan_file)
    if plan is None:
        return False
    warnings = [w for w in plan.warnings if not w.startswith(CONFIGURATION_REFUSED)]
    warnings.append(f"{CONFIGURATION_REFUSED}{problems}; the last good plan holds")
    log.error("%s", warnings[-1])
    try:
        _publish(plan.model_copy(update={"warnings": warnings}), places)
    except OSError as error:
        log.error("%s: %s", places.plan_file, error.strerror)
    return True


def _publish(plan: PlanData, places: Places) -> None:
    SnapshotWriter(places.plan_file, COMPONENT, PLAN_VALID_MILLISECONDS).publish(plan)
