# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden simulate`` as it is typed; it needs no node, no card and no root."""

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gpuwarden.cli.main import main
from gpuwarden.plant.cards import PRESETS
from gpuwarden.plant.scenario import load_scenario

ROOT = Path(__file__).parents[3]
SCENARIOS = ROOT / "packaging" / "scenarios"
# Where the package puts them.
INSTALLED_SCENARIOS = "/usr/share/gpuwarden/scenarios"
DOCUMENTED = [
    line
    for page in ("first-hour.md", "operate.md")
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    if line.startswith("gpuwarden simulate ")
]
SHORT = {"duration_s": 120, "steps": [{"at_s": 0, "ambient_c": 45, "load": 1.0}]}


@pytest.fixture
def short(tmp_path: Path) -> Path:
    file = tmp_path / "short.json"
    file.write_text(json.dumps(SHORT))
    return file


def simulate(scenario: Path, *more: str, card: str = "T4", policy: str = "regulated") -> int:
    return main(
        ["simulate", "--card", card, "--scenario", str(scenario), "--policy", policy, *more]
    )


@pytest.mark.parametrize("card", PRESETS)
@pytest.mark.parametrize("policy", ["regulated", "stepped"])
def test_every_card_and_policy_as_json(
    card: str, policy: str, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(short, "--json", card=card, policy=policy) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["card"], said["policy"]) == (1, card, policy)
    assert said["scenario"] == "short"
    assert said["duration_seconds"] == 120
    assert "best_constant" not in said


def test_the_best_constant_is_said_when_asked_for(
    short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(short, "--json", "--best-constant") == 0
    best = json.loads(capsys.readouterr().out)["best_constant"]
    assert set(best) == {"limit_watts", "sm_clock_mhz", "throughput_ratio"}


def test_for_people(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(short, "--best-constant") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "T4, short, regulated, 120 s (SIMULATED)"
    assert lines[-1].startswith("  best constant  70 W, SM at most ")
    assert all(len(line) <= 80 for line in lines)


def test_a_drawing(short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.svg"
    assert simulate(short, "--plot", str(file)) == 0
    text = file.read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    assert "T4 simulated, short, regulated" in text
    assert "critical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"duration_s": None}, "duration_s"),
        ({"steps": [{"at_s": -5, "ambient_c": 20, "load": 1}]}, "steps.0.at_s"),
        ({"steps": [{"at_s": 0, "load": 1}]}, "steps.0.ambient_c"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_scenario_is_told_by_field(
    change: dict[str, object], named: str, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short.write_text(json.dumps(SHORT | change))
    assert simulate(short) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{short}: {named}: " in said.err


def test_a_scenario_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(tmp_path / "none.json") == 2
    assert "none.json: can't be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--card", "GTX"], ["--policy", "none"], ["--scenario"], ["--plot", "run.gif"], ["--fast"]],
)
def test_bad_use(words: list[str], short: Path) -> None:
    given = ["simulate", "--card", "T4", "--scenario", str(short), "--policy", "stepped", *words]
    try:
        status = main(given)
    except SystemExit as left:
        status = int(left.code or 0)
    assert status == 2


def test_a_drawing_that_cannot_be_written(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(short, "--plot", "/proc/none/run.svg") == 1
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.json")), ids=lambda file: file.stem)
def test_the_shipped_scenarios_are_valid_and_an_hour_long(file: Path) -> None:
    assert load_scenario(file).duration_s == 3600


def test_the_documentation_has_simulations_of_each_kind() -> None:
    assert len(DOCUMENTED) == 4
    installed = (ROOT / "packaging" / "debian" / "gpuwarden.install").read_text(encoding="utf-8")
    assert f"packaging/scenarios/*.json {INSTALLED_SCENARIOS[1:]}\n" in installed
    for kind in ("regulated", "stepped", "--best-constant --json", "--plot "):
        assert any(kind in line for line in DOCUMENTED)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_a_simulation_runs_as_documented(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, *words = shlex.split(
        line.replace(INSTALLED_SCENARIOS, str(SCENARIOS)).replace("/tmp/", f"{tmp_path}/")
    )
    assert main(words) == 0
    assert capsys.readouterr().out
    assert "--plot" not in words or (tmp_path / "run.svg").stat().st_size
