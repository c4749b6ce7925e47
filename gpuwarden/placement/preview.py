# SPDX-License-Identifier: Apache-2.0
"""What the present configuration files would give: the plan and its files, with nothing changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from gpuwarden.config import Configuration
from gpuwarden.control.states import PlanData
from gpuwarden.placement.dropins import unit_files, with_revisions
from gpuwarden.placement.enumerate import Listing, list_cards_in_child
from gpuwarden.placement.findings import find_cards
from gpuwarden.placement.gentle import choose_slices, spared
from gpuwarden.placement.plan import Driver, make_plan
from gpuwarden.placement.service import Places, plan_of_this_boot
from gpuwarden.placement.units import read_installed

Change = Literal["new", "changed", "unchanged", "removed"]


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan that nobody runs by.

    :ivar files: every file, by its path below systemd's unit directory, with what it would become.
    :ivar caveat: why the cards are not those that the driver shows now; empty where they are.
    """

    plan: PlanData
    files: Mapping[PurePosixPath, tuple[Change, str]]
    caveat: str = ""


def preview(
    places: Places,
    configuration: Configuration,
    ask: Callable[[], Listing] = list_cards_in_child,
) -> Preview:
    """Plan and change nothing.

    :raises OSError: the kernel doesn't say what there is.
    :raises ValueError: what it says can't be read.
    :raises UnitError: systemd's directory can't be read.
    :raises SystemctlError: systemd doesn't say what runs.
    """
    ground, doubts = places.ground(places.sysfs)
    findings = find_cards(places.cards_file, places.sysfs, ground.machine, ask)
    former = plan_of_this_boot(places.plan_file)
    cards, driver, caveat = findings.cards, findings.driver, ""
    if findings.record is None and former is not None and former.cards:
        # Simulated cards show themselves to the units alone, whose environment names their library.
        caveat = f"the cards are those of the present plan, for {driver.reason}"
        cards, driver = former.cards, Driver(former.driver_version, former.simulated)
        findings.warnings.clear()
    said = [*doubts, *findings.warnings]
    plan = make_plan(cards, ground, configuration, driver, said, findings.notes)
    plan = with_revisions(plan, configuration, ground.machine)
    alive = places.alive()
    installed = read_installed(places.unit_directory)
    plan = choose_slices(plan, {str(path): text for path, text in installed.items()}, alive)
    wanted = unit_files(plan, configuration, ground.machine)
    files = spared(wanted, installed, former, plan, alive)
    return Preview(plan, _compared(files, installed), caveat)


def _compared(
    files: Mapping[PurePosixPath, str], installed: Mapping[PurePosixPath, str]
) -> dict[PurePosixPath, tuple[Change, str]]:
    found: dict[PurePosixPath, tuple[Change, str]] = {}
    for path in sorted(files.keys() | installed.keys()):
        new, old = files.get(path), installed.get(path)
        if new is None:
            found[path] = ("removed", installed[path])
        elif old is None:
            found[path] = ("new", new)
        else:
            found[path] = ("unchanged" if new == old else "changed", new)
    return found
