# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.cli.main import main
from gpuwarden.config import Configuration
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import PlanData
from gpuwarden.placement.plan import Driver, make_plan
from gpuwarden.topology.sysfs import read_topology
from tests.machines import card
from tests.unit.cli.samples import guard, worker


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(names, "PLAN_FILE", tmp_path / "plan.json")
    monkeypatch.setattr(names, "GUARD_STATE_FILE", tmp_path / "state.json")
    return tmp_path


def publish(**changes: object) -> PlanData:
    """A plan for this very machine, with something else in it."""
    whole = read_topology()
    plan = make_plan([card(0, 0)], whole, Configuration(), Driver("580", simulated=False))
    plan = plan.model_copy(update=changes)
    SnapshotWriter(names.PLAN_FILE, "placement").publish(plan)
    return plan


def test_the_plan_in_force_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    publish()
    assert main(["placement"]) == 0
    text = capsys.readouterr()
    assert text.err == ""
    assert text.out.startswith("  WORKER  GPU  NODE")
    assert "NUMA node 0" in text.out


def test_for_scripts_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    plan = publish()
    assert main(["placement", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "schema": 1,
        "stale": "",
        "outdated": [],
        "plan": plan.model_dump(mode="json"),
    }


def test_a_stale_plan_says_what_it_was_made_for(capsys: pytest.CaptureFixture[str]) -> None:
    publish(machine="node 0: CPUs 0-4095")
    assert main(["placement"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "STALE: it was made for node 0: CPUs 0-4095, and now there is" in text
    assert "systemctl reload medgemma-numa.service" in text
    publish(configuration_digest="another")
    assert main(["placement", "--json"]) == 1
    stale = json.loads(capsys.readouterr().out)["stale"]
    assert stale == "it was made for another configuration"


def test_workers_that_run_by_a_former_plan_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    publish()
    state = guard(workers=[worker(0, outdated=True), worker(1)])
    SnapshotWriter(names.GUARD_STATE_FILE, "guard").publish(state)
    assert main(["placement"]) == 0
    assert "before a restart: systemctl restart medgemma-worker@0.service" in (
        capsys.readouterr().out
    )


def test_without_a_plan_the_unit_that_makes_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["placement"]) == 3
    assert "systemctl start medgemma-numa.service" in capsys.readouterr().err


def test_a_dry_run_prints_files_and_changes_nothing(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["placement", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "# /run/systemd/system/medgemma-thermal.target.d/50-placement.conf (new)" in out
    assert main(["placement", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"][0]["change"] == "new"
    assert document["plan"]["nodes"]
    assert list(run_directory.iterdir()) == []
