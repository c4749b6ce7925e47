# SPDX-License-Identifier: Apache-2.0
"""What several checks ask of the node: its plan, its configuration, its units."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden import names
from gpuwarden.config import (
    Configuration,
    ConfigurationError,
    accepted_configuration,
    load_configuration,
)
from gpuwarden.control.snapshot import SnapshotError, read_snapshot
from gpuwarden.control.states import PlanData
from gpuwarden.doctor.commands import DEADLINE_SECONDS, Run, run
from gpuwarden.doctor.places import Text, below, text_of
from gpuwarden.systemd.command import SystemctlError, units_properties

ROOT = Path("/")
PERSISTENCE_UNIT = "nvidia-persistenced.service"
TUNED_UNIT = "tuned.service"
POWER_UNITS = ("power-profiles-daemon.service", "tlp.service", "auto-cpufreq.service")
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PROPERTIES = ("LoadState", "ActiveState", "MainPID", "ControlGroup", "Environment")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd has it; ``control_group`` is empty while nothing of it runs."""

    loaded: bool
    active: str
    main_pid: int
    control_group: str
    environment: str

    @property
    def is_active(self) -> bool:
        """Whether it runs now, or counts as running."""
        return self.active in ("active", "reloading")


@dataclass(frozen=True, slots=True)
class Node:
    """A machine below ``root``, with what more than one check needs.

    :ivar units: by name, those that some check asks for; empty where systemd says nothing.
    :ivar units_problem: why systemd says nothing; empty where it does.
    :ivar plan_problem: why there is no plan, or what is wrong with it.
    """

    root: Path
    is_root: bool
    configuration: Configuration | None = None
    configuration_problem: str = ""
    plan: PlanData | None = None
    plan_problem: str = ""
    units: Mapping[str, Unit] = field(default_factory=dict)
    units_problem: str = ""
    run: Run = run

    def path(self, path: Path | str) -> Path:
        """Where an absolute path of the machine lies."""
        return below(self.root, path)

    def text(self, path: Path | str) -> Text:
        """A file's text. Raises OSError where the kernel or the disk fails."""
        return text_of(self.path(path))


def look(root: Path = ROOT) -> Node:
    """The machine below ``root``: this one, unless a test says another."""
    configuration, configuration_problem = _configuration(root)
    plan, plan_problem = _plan(root)
    units, units_problem = _units(plan)
    return Node(
        root=root,
        is_root=os.geteuid() == 0,
        configuration=configuration,
        configuration_problem=configuration_problem,
        plan=plan,
        plan_problem=plan_problem,
        units=units,
        units_problem=units_problem,
    )


def _configuration(root: Path) -> tuple[Configuration | None, str]:
    """What the service runs on, else what the files say; and what is wrong with the files."""
    accepted = accepted_configuration(below(root, names.ACCEPTED_CONFIGURATION_FILE))
    try:
        written = load_configuration(
            below(root, names.CONFIG_FILE), below(root, names.CONFIG_DIRECTORY)
        )
    except ConfigurationError as error:
        return accepted, str(error)
    return accepted or written, ""


def _plan(root: Path) -> tuple[PlanData | None, str]:
    try:
        snapshot = read_snapshot(below(root, names.PLAN_FILE), PlanData)
    except SnapshotError as error:
        return None, str(error)
    if snapshot.boot_id != text_of(below(root, BOOT_ID)):
        return None, f"{names.PLAN_FILE} is of another boot"
    return snapshot.data, ""


def _units(plan: PlanData | None) -> tuple[dict[str, Unit], str]:
    workers = [names.worker_unit(worker.number) for worker in plan.workers] if plan else []
    asked = [
        *(
            names.GUARD_UNIT,
            names.GATEWAY_UNIT,
            names.NUMA_UNIT,
            names.METRICS_SOCKET_UNIT,
            *workers,
        ),
        *(PERSISTENCE_UNIT, TUNED_UNIT, *POWER_UNITS),
    ]
    try:
        answers = units_properties(asked, _PROPERTIES, DEADLINE_SECONDS)
    except SystemctlError as error:
        return {}, str(error)
    return {name: _unit(answer) for name, answer in zip(asked, answers, strict=True)}, ""


def _unit(answer: Mapping[str, str]) -> Unit:
    pid = answer.get("MainPID", "")
    return Unit(
        loaded=answer.get("LoadState") == "loaded",
        active=answer.get("ActiveState", ""),
        main_pid=int(pid) if pid.isdigit() else 0,
        control_group=answer.get("ControlGroup", ""),
        environment=answer.get("Environment", ""),
    )
