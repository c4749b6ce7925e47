# SPDX-License-Identifier: Apache-2.0
"""The trial for real cards on a simulated one, and the walls that keep it from setting anything."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.simulation import REPOSITORY, build_library, running_node

SETTERS = """\
import pynvml
from gpuwarden.nvml import calls
from gpuwarden.nvml.library import Session, choose_library
from tests.gpu.reading_only import SetterCalledError, forbid_setters

session = Session(choose_library())
card = session.open_whole_card(session.cards().cards[0].uuid)
watts = card.control.power_limit_milliwatts()
setter = pynvml.nvmlDeviceSetPowerManagementLimit
setter(card.reader._handle, watts)
forbid_setters()
forbid_setters()
refused = 0
for call in (
    lambda: card.control.set_power_limit(watts - 50_000),
    lambda: setter(card.reader._handle, watts - 50_000),
    lambda: card.control.lock_sm_clocks(345, 1000),
    card.control.reset_sm_clocks,
    card.control.reset_memory_clock,
    lambda: calls.call("test", "nvmlDeviceClearEccErrorCounts", card.reader._handle, 0),
):
    try:
        call()
    except SetterCalledError:
        refused += 1
assert card.control.power_limit_milliwatts() == watts
card.reader.sample(), card.reader.condition(), card.reader.limits(), card.events.drain()
session.close()
print(refused)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


def run_in(node_state: Path, attach: Path, library: Path, *arguments: str) -> str:
    environment = os.environ | {
        "GPUWARDEN_NVML_LIBRARY": str(library),
        "GPUWARDEN_SIM_STATE": str(node_state),
        "GPUWARDEN_SIM_ATTACH": str(attach),
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_trial_can_set_nothing(tmp_path: Path, library: Path) -> None:
    with running_node(tmp_path / "node", library, "H200") as node:
        attach = node.directory / "attach.sock"
        assert run_in(node.state, attach, library, "-c", SETTERS).strip() == "6"


def test_a_short_trial_records_every_sample(tmp_path: Path, library: Path) -> None:
    folder = tmp_path / "trial"
    with running_node(tmp_path / "node", library, "H200") as node:
        attach = node.directory / "attach.sock"
        arguments = ("-m", "tests.gpu.holding", str(folder), "--scale", "0.04", "--alert", "46")
        run_in(node.state, attach, library, *arguments)
    with (folder / "holding.csv").open(encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    about = json.loads((folder / "holding.json").read_text())
    assert {row["phase"] for row in rows} == {"rest", "full", "held", "given back"}
    assert about["samples"] == len(rows) + len(about["refused"])
    assert {row["alert_celsius"] for row in rows if row["phase"] == "held"} == {"46"}
    assert max(float(row["watts"]) for row in rows if row["phase"] == "full") > 300
    assert int(rows[-1]["requests"]) > 0
    assert about["calibration"][0]["phase"] == "rest"


def test_the_survey_reads_everything_of_a_card(tmp_path: Path, library: Path) -> None:
    with running_node(tmp_path / "node", library, "H200") as node:
        attach = node.directory / "attach.sock"
        arguments = ("-m", "tests.gpu.survey", "--json", "--loop-seconds", "1")
        found = json.loads(run_in(node.state, attach, library, *arguments))
    assert found["card"] == "NVIDIA H200"
    assert all(each["supported"] for each in found["readings"])
    assert found["loop"]["refused"] == 0
