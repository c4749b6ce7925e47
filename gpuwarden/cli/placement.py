# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden placement``: which worker runs where, and what a reload would make of it."""

import argparse
import json
import textwrap

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import coloured, table, warn
from gpuwarden.cli.placement_picture import HEADER, WIDTH, picture, worker_row
from gpuwarden.cli.working import working
from gpuwarden.config import (
    Configuration,
    ConfigurationError,
    digest,
    effective_configuration,
    load_configuration,
)
from gpuwarden.control.snapshot import Snapshot, SnapshotError, boot_id, read_snapshot
from gpuwarden.control.staleness import why_stale
from gpuwarden.control.states import GuardData, PlanData
from gpuwarden.guard.node import node_rules
from gpuwarden.placement.preview import Preview, preview
from gpuwarden.placement.service import Places
from gpuwarden.placement.units import UnitError
from gpuwarden.systemd.command import SystemctlError
from gpuwarden.text import one_line
from gpuwarden.topology.sysfs import read_summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[--dry-run] [--json]``."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and the drop-ins that the configuration files would give now; "
        "change nothing",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; 1 when it is stale, or with --dry-run when the files are wrong."""
    return dry_run(arguments.json) if arguments.dry_run else show(arguments.json)


def show(as_json: bool) -> int:
    """The plan in force."""
    try:
        snapshot = read_snapshot(names.PLAN_FILE, PlanData)
    except SnapshotError as error:
        raise CommandError(
            f"there is no placement plan: {error} (systemctl start {names.NUMA_UNIT})",
            Exit.UNREACHABLE,
        ) from error
    plan, stale, outdated = snapshot.data, _staleness(snapshot), _outdated()
    if as_json:
        document = {
            "schema": 1,
            "stale": stale,
            "outdated": outdated,
            "plan": plan.model_dump(mode="json"),
        }
        print(json.dumps(document, indent=2))
    else:
        lines = plan_lines(plan)
        if outdated:
            units = " ".join(names.worker_unit(number) for number in outdated)
            lines.append(f"  not in force before a restart: systemctl restart {units}")
        if stale:
            again = f"{stale} (systemctl reload {names.NUMA_UNIT})"
            lines += [coloured(line, "bad") for line in _wrapped("STALE", again)]
        print("\n".join(lines))
    return Exit.WRONG if stale else Exit.GOOD


def dry_run(as_json: bool) -> int:
    """What the files would give."""
    try:
        configuration = load_configuration(rules=node_rules())
    except ConfigurationError as error:
        for problem in error.problems:
            warn(str(problem))
        return Exit.WRONG
    try:
        with working("asking the driver for its cards"):
            found = preview(Places(), configuration)
    except (OSError, ValueError, UnitError, SystemctlError) as error:
        raise CommandError(
            f"no plan can be made: {error} (gpuwarden doctor)", Exit.WRONG
        ) from error
    warn(found.caveat)
    if as_json:
        files = [
            {"path": str(Places.unit_directory / path), "change": change, "text": text}
            for path, (change, text) in found.files.items()
        ]
        plan = found.plan.model_dump(mode="json")
        print(json.dumps({"schema": 1, "plan": plan, "files": files}, indent=2))
    else:
        print("\n".join([*plan_lines(found.plan), "", *file_lines(found)]))
    return Exit.GOOD


def plan_lines(plan: PlanData) -> list[str]:
    """The plan for people."""
    lines = []
    if plan.simulated:
        lines.append("  SIMULATED cards")
    if plan.workers:
        lines += table(HEADER, [worker_row(worker) for worker in plan.workers])
    else:
        lines += _wrapped("no workers", plan.reason)
    lines += ["", *picture(plan)]
    if plan.housekeeping_exclusive:
        lines.append(f"  all else of this host is kept on CPUs {plan.housekeeping_cpus}")
    lines += [line for note in plan.notes for line in _wrapped("note", note)]
    for text in plan.warnings:
        lines += [coloured(line, "warn") for line in _wrapped("warning", text)]
    return lines


def _wrapped(kind: str, text: str) -> list[str]:
    """A sentence on lines of the picture's width."""
    return textwrap.wrap(
        f"{kind}: {one_line(text)}",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )


def file_lines(found: Preview) -> list[str]:
    """The files as ``systemctl cat`` shows them, each with what it would become."""
    lines = []
    for path, (change, text) in found.files.items():
        kept = [] if change == "removed" else text.splitlines()
        lines += [f"# {Places.unit_directory / path} ({change})", *kept, ""]
    return lines


def _staleness(snapshot: Snapshot[PlanData]) -> str:
    try:
        configuration: Configuration | None = effective_configuration()
    except ConfigurationError:
        configuration = None  # nothing else is in use: the planner kept to what it had
    wanted = digest(configuration) if configuration else snapshot.data.configuration_digest
    try:
        return why_stale(snapshot, boot_id(), wanted, read_summary())
    except (OSError, ValueError) as error:
        raise CommandError(
            f"the kernel doesn't say which CPUs there are: {error}", Exit.WRONG
        ) from error


def _outdated() -> list[int]:
    """Workers that run by a former plan, as the guard saw them last."""
    try:
        guard = read_snapshot(names.GUARD_STATE_FILE, GuardData).data
    except SnapshotError:
        return []
    return [worker.number for worker in guard.workers if worker.outdated]
