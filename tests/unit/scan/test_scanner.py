# SPDX-License-Identifier: Apache-2.0
"""When it is looked for processes that the driver doesn't list, and who is none of them."""

from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import PlanData
from gpuwarden.nvml.library import Library
from gpuwarden.scan import scanner as scanner_module
from gpuwarden.scan.descriptors import openers
from gpuwarden.scan.outcome import NotSeen, Seen
from gpuwarden.scan.scanner import SEARCH_EVERY_SECONDS, Scanner
from tests.machines import card
from tests.unit.nvml.driver import LOST, Fails, StandInDriver, attach
from tests.unit.nvml.test_processes import COMPUTE_V3, MEMORY, listing
from tests.unit.scan.evidences import CUSTOMS, GIB, WORKER_GROUP
from tests.unit.scan.procfs import OTHER_NAMESPACE, ProcFolder

DEVICE = "/dev/nvidia0"
DAEMON = "0::/medgemma.slice/medgemma-control.slice/medgemma-thermal@0.service"


class Bench:
    """A scanner, its driver, its /proc and its clock."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan_file = folder / "plan.json"
        plan = PlanData(
            driver_version="580",
            simulated=False,
            cards=[card(0)],
            workers=[],
            housekeeping_cpus="0",
        )
        SnapshotWriter(self.plan_file, "placement").publish(plan)
        answers: dict[str, Any] = {
            "nvmlInitWithFlags": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetHandleByPciBusId_v2": None,
            "nvmlDeviceGetUUID": "GPU-00000000",
        }
        self.driver = attach(StandInDriver(answers), monkeypatch)
        self.proc = ProcFolder(folder)
        self.now = 100.0
        self.searched: list[int] = []
        self.holds(0)

        def counted(device_file: str, pids: set[int], proc: Path) -> list[int]:
            assert device_file == DEVICE
            self.searched.append(len(pids))
            return openers(device_file, sorted(pids), proc)

        monkeypatch.setattr(scanner_module, "openers", counted)
        self.scanner = Scanner(
            0,
            self.plan_file,
            Library("stand-in", simulated=False),
            self.proc.reader(),
            self.proc.root,
            lambda: self.now,
        )

    def holds(self, used: int, *listed: tuple[int, int]) -> None:
        """What the driver says from now on."""
        self.driver.answers[MEMORY] = {"used": used, "total": 40 * GIB}
        self.driver.answers[COMPUTE_V3] = listing(*listed)

    def look(self, after_seconds: float = 5.0) -> Seen:
        self.now += after_seconds
        found = self.scanner.look(CUSTOMS)
        assert isinstance(found, Seen), found
        return found

    def classes(self) -> dict[int, str]:
        return {each.pid: each.holder_class for each in self.look().holders}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_card_whose_memory_is_explained_is_not_searched_for(bench: Bench) -> None:
    bench.proc.add(50, opened=[DEVICE])
    bench.holds(GIB, (50, GIB))
    assert bench.classes() == {50: "foreign"}
    assert bench.searched == []


def test_what_is_found_is_looked_at_again_and_all_now_and_then(bench: Bench) -> None:
    for pid in (50, 60, 70):
        bench.proc.add(pid, opened=[DEVICE] if pid == 50 else [])
    bench.holds(GIB)
    assert bench.classes() == {50: "hidden"}
    bench.look()
    bench.look()
    assert bench.searched == [3, 1, 1]
    bench.look(SEARCH_EVERY_SECONDS)
    assert bench.searched[-1] == 3


def test_something_new_to_explain_is_looked_into_at_once(bench: Bench) -> None:
    bench.proc.add(50)
    bench.holds(GIB)
    assert bench.look().unexplained_bytes == GIB
    bench.proc.add(60, opened=[DEVICE])
    assert bench.look().holders == ()
    bench.holds(2 * GIB)
    assert bench.classes() == {60: "hidden"}
    assert bench.look().unexplained_bytes == 0


def test_who_has_the_card_open_for_a_good_reason_is_not_named(bench: Bench) -> None:
    bench.proc.run_unit("medgemma-worker@0.service")
    bench.proc.add(50, opened=[DEVICE], group=DAEMON)
    bench.proc.add(60, opened=[DEVICE], command="nvidia-smi")
    bench.proc.add(70, opened=[DEVICE], group=f"0::{WORKER_GROUP}")
    bench.proc.add(80, opened=[DEVICE], namespace=OTHER_NAMESPACE)
    bench.holds(GIB)
    assert bench.classes() == {80: "container"}


def test_one_that_is_listed_by_now_is_not_hidden(bench: Bench) -> None:
    bench.proc.add(50, opened=[DEVICE])
    bench.holds(GIB)
    lists = iter([listing()])  # and from the second question on, it

    def answer(*arguments: Any) -> Any:
        return next(lists, listing((50, GIB)))(*arguments)

    bench.driver.answers[COMPUTE_V3] = answer
    assert bench.look().holders == ()


def test_from_another_namespace_nothing_is_called_unexplained(bench: Bench) -> None:
    (bench.proc.root / "self/ns/pid").unlink()
    (bench.proc.root / "self/ns/pid").symlink_to(OTHER_NAMESPACE)
    bench.scanner = Scanner(
        0,
        bench.plan_file,
        Library("stand-in", simulated=False),
        bench.proc.reader(),
        bench.proc.root,
    )
    bench.holds(GIB)
    found = bench.look()
    assert (found.unexplained_bytes, found.holders) == (None, ())
    assert "PID namespace" in found.problem


def test_a_lost_card_is_opened_anew(bench: Bench) -> None:
    bench.look()
    bench.driver.answers[COMPUTE_V3] = Fails(LOST)
    found = bench.scanner.look(CUSTOMS)
    assert isinstance(found, NotSeen)
    assert (found.uuid, found.unplanned) == ("GPU-00000000", False)
    assert "lost" in found.problem
    bench.holds(0)
    bench.look()
    assert bench.driver.calls.count("nvmlInitWithFlags") == 2


def test_without_a_plan_it_waits_for_one(bench: Bench) -> None:
    bench.plan_file.unlink()
    found = bench.scanner.look(CUSTOMS)
    assert isinstance(found, NotSeen)
    assert found.unplanned
