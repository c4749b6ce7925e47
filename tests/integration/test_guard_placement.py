# SPDX-License-Identifier: Apache-2.0
# A plan that no longer holds: the supervisor makes another before it starts a worker by it.

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import PlanData
from gpuwarden.guard import kernel, supervisor
from gpuwarden.names import NUMA_UNIT, worker_unit
from tests.integration.supervised_node import DIGEST, plan
from tests.integration.test_guard_heat import Node, both_ready, node

__all__ = ["node"]
STALE = "it was made for another configuration"


def publish(data: PlanData, folder: Path) -> None:
    SnapshotWriter(folder / "plan.json", "placement", 10**9).publish(data)


def replanning(node: Node, folder: Path, renewed: PlanData) -> None:
    """Have the planner's unit publish ``renewed`` when it is asked."""
    job = node.systemd._job

    def planned(verb: str, name: str) -> Any:
        if name == NUMA_UNIT:
            publish(renewed, folder)
        return job(verb, name)

    node.systemd._job = planned  # type: ignore[method-assign]  # what the unit would do


@pytest.fixture
async def stale(node: Node, tmp_path: Path) -> AsyncIterator[Node]:
    publish(plan().model_copy(update={"configuration_digest": "former"}), tmp_path)
    yield node


async def test_a_stale_plan_is_made_anew_before_any_worker_starts(
    stale: Node, tmp_path: Path
) -> None:
    replanning(stale, tmp_path, plan())
    await stale.open_up()
    await stale.until(both_ready)
    asked = [each for each in stale.systemd.asked if "thermal" not in each]
    assert asked.index(f"start {NUMA_UNIT}") < asked.index(f"start {worker_unit(0)}")


async def test_no_worker_starts_by_a_plan_that_stays_stale_and_the_reason_is_said(
    stale: Node,
) -> None:
    await stale.open_up()
    data = await stale.until(lambda data: all(STALE in w.last_error for w in data.workers))
    assert [worker.state for worker in data.workers] == ["failed", "failed"]
    assert data.state == "degraded"
    assert f"the placement plan is stale: {STALE}" in data.reasons
    assert not stale.asked_of(0)
    assert not stale.asked_of(1)


async def test_cpus_that_have_changed_make_a_plan_stale(node: Node, tmp_path: Path) -> None:
    publish(plan().model_copy(update={"machine": "node 0: CPUs 0-4095"}), tmp_path)
    replanning(node, tmp_path, plan())
    await node.open_up()
    await node.until(both_ready)
    assert f"start {NUMA_UNIT}" in node.systemd.asked


async def test_a_worker_from_before_its_revision_is_outdated_until_its_restart(
    node: Node, tmp_path: Path
) -> None:
    await node.open_up()
    await node.until(both_ready)
    workers = plan().workers
    changed = workers[0].model_copy(update={"revised_monotonic_microseconds": 5})
    publish(plan().model_copy(update={"workers": [changed, workers[1]]}), tmp_path)
    data = await node.until(lambda data: data.workers[0].outdated)
    assert data.state == "running"
    assert "until it is restarted" in data.workers[0].reason
    assert node.supervisor.outdated_workers() == [0]
    node.systemd.units[worker_unit(0)].started_monotonic_microseconds = 6
    node.systemd.change(worker_unit(0), "active")
    before = node.systemd.asked.count(f"start {NUMA_UNIT}")
    await node.until(lambda data: not data.workers[0].outdated)
    # What was spared for the former life goes.
    await node.until(lambda data: node.systemd.asked.count(f"start {NUMA_UNIT}") > before)


async def test_a_worker_that_runs_unplanned_is_named(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "medgemma.slice/medgemma-workers.slice/a.slice/medgemma-worker@7.service"
    (tmp_path / group).mkdir(parents=True)
    (tmp_path / group / "cgroup.procs").write_text("1\n")
    monkeypatch.setattr(supervisor, "running_workers", lambda: kernel.running_workers(tmp_path))
    await node.open_up()
    data = await node.until(lambda data: any("worker 7" in reason for reason in data.reasons))
    assert f"systemctl stop {names.worker_unit(7)}" in "".join(data.reasons)


def test_the_digest_is_that_of_the_plan() -> None:
    assert plan().configuration_digest == DIGEST
