# SPDX-License-Identifier: Apache-2.0
"""Machines in a folder, for readers that take a root."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpuwarden.config import Configuration
from gpuwarden.control.states import PlanData, PlannedWorker
from gpuwarden.doctor.commands import Answer
from gpuwarden.doctor.findings import Finding, Verdict
from gpuwarden.doctor.node import Node, Unit
from tests.machines import card

GROUP = "/medgemma.slice/medgemma-worker@0.service"
WORKER_UNIT = "medgemma-worker@0.service"
TASK_STAT = "{pid} ({name}) S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 {nice} 4 0 9 1 1 " + (
    "0 " * 15 + "{priority} {policy} 0 0"
)


def nothing_answers(command: Sequence[str]) -> Answer:
    return Answer("", f"{command[0]} is not installed")


class Made:
    """A machine that is made file by file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def process(
        self,
        pid: int,
        cpus: str = "1",
        numa_maps: str | None = None,
        threads: Sequence[tuple[str, int, int, int]] = (("python3", 0, 0, 0),),
    ) -> None:
        """``threads``: name, policy, real-time priority, nice."""
        status = f"Name:\tpython3\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t0-1\n"
        self.write(f"/proc/{pid}/status", status)
        for number, (name, policy, priority, nice) in enumerate(threads):
            task = f"/proc/{pid}/task/{pid + number}"
            self.write(f"{task}/status", status.replace("python3", name))
            stat = TASK_STAT.format(
                pid=pid + number, name=name, nice=nice, priority=priority, policy=policy
            )
            self.write(f"{task}/stat", stat)
        if numa_maps is not None:
            self.write(f"/proc/{pid}/numa_maps", numa_maps)

    def node(
        self,
        *,
        plan: PlanData | None = None,
        units: Mapping[str, Unit] | None = None,
        run: Mapping[str, Answer] | None = None,
        is_root: bool = True,
        configuration: Configuration | None = None,
    ) -> Node:
        """``run``: what a program answers, by its name."""
        answers = run or {}
        return Node(
            root=self.root,
            is_root=is_root,
            configuration=configuration or Configuration(),
            plan=plan,
            units=units or {},
            units_problem="" if units else "no systemd",
            run=lambda command: answers.get(command[0], nothing_answers(command)),
        )


def unit(active: str = "active", group: str = "", environment: str = "") -> Unit:
    return Unit(
        loaded=True, active=active, main_pid=100, control_group=group, environment=environment
    )


def plan(**changes: object) -> PlanData:
    worker = {
        "number": 0,
        "gpu_index": 0,
        "gpu_uuid": "GPU-00000000",
        "numa_node": 0,
        "cpus": "1",
        "memory_max_bytes": 2**30,
        "memory_policy": "preferred",
        "inference_priority": "normal",
    }
    return PlanData(
        driver_version="580.1",
        simulated=False,
        cards=[card(0)],
        workers=[PlannedWorker.model_validate(worker | changes)],
        housekeeping_cpus="0",
    )


def by_name(findings: Sequence[Finding]) -> dict[str, Finding]:
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings)
    return named


def verdicts(findings: Sequence[Finding]) -> dict[str, Verdict]:
    return {name: finding.verdict for name, finding in by_name(findings).items()}
