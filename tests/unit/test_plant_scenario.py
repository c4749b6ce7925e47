# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.plant.scenario import ScenarioError, load_scenario, parse_scenario
from gpuwarden.simulator.configuration import CardsError, load_cards

STEP = {"at_s": 0, "ambient_c": 24, "load": 0.9}


def scenario(**changes: Any) -> str:
    return json.dumps({"duration_s": 3600, "steps": [STEP]} | changes)


def test_the_form_of_the_contract_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scenario.json"
    later = {"at_s": 60, "ambient_c": 45, "load": 1.0, "resistance_factor": 1.6, "ramp_s": 600}
    path.write_text(scenario(initial={"sink_c": 70}, steps=[STEP, later]))
    read = load_scenario(path)
    assert read.initial is not None
    assert read.initial.sink_c == 70
    assert read.at(-60).ambient_celsius == read.at(59).ambient_celsius == 24
    assert read.at(360).ambient_celsius == pytest.approx(34.5)
    assert read.at(360).resistance_factor == pytest.approx(1.3)
    assert read.at(3000).load == 1.0


def test_a_ramp_that_is_cut_short_goes_on_from_where_it_was() -> None:
    steps = [STEP, STEP | {"at_s": 100, "ambient_c": 44, "ramp_s": 200}, STEP | {"at_s": 200}]
    steps[2] = steps[2] | {"ambient_c": 24, "ramp_s": 100}
    read = parse_scenario(scenario(steps=steps), "test")
    assert read.at(199.999).ambient_celsius == pytest.approx(34, abs=0.01)
    assert read.at(200).ambient_celsius == pytest.approx(34)
    assert read.at(250).ambient_celsius == pytest.approx(29)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "file"),
        ("[]", "file"),
        (scenario(steps=[]), "steps"),
        (json.dumps({"steps": [STEP]}), "duration_s"),
        (scenario(duration_s=-1), "duration_s"),
        (scenario(duration_s=float("nan")), "duration_s"),
        (scenario(colour="red"), "colour"),
        (scenario(steps=[STEP | {"at_s": -5}]), "steps.0.at_s"),
        (scenario(steps=[STEP | {"at_s": 5}]), "steps.0.at_s"),
        (scenario(steps=[STEP, STEP]), "steps.1.at_s"),
        (scenario(steps=[STEP, STEP | {"at_s": 3600}]), "steps.1.at_s"),
        (scenario(steps=[{"at_s": 0, "load": 1}]), "steps.0.ambient_c"),
        (scenario(steps=[STEP | {"load": 1.5}]), "steps.0.load"),
        (scenario(steps=[STEP | {"load": "1"}]), "steps.0.load"),
        (scenario(steps=[STEP | {"resistance_factor": 0}]), "steps.0.resistance_factor"),
        (scenario(steps=[STEP | {"ramp_s": -1}]), "steps.0.ramp_s"),
        (scenario(steps=[STEP | {"wind": 3}]), "steps.0.wind"),
        (scenario(initial={}), "initial.sink_c"),
    ],
)
def test_a_wrong_scenario_is_refused_by_the_field(text: str, named: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "hot.json")
    assert str(caught.value).startswith("hot.json: ")
    assert named in str(caught.value)


def test_a_scenario_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.json: can't be read"):
        load_scenario(tmp_path / "none.json")


def test_without_a_file_two_a100_stand_at_fixed_addresses_with_fixed_uuids(tmp_path: Path) -> None:
    first, second = load_cards(tmp_path / "none.json").cards
    assert (first.preset, first.nvml_bus_id) == ("A100", "00000000:41:00.0")
    assert second.nvml_bus_id == "00000000:81:00.0"
    assert first.effective_uuid == "GPU-cb23052d-453e-5e42-91b3-e2eb11768e84"
    assert second.effective_uuid != first.effective_uuid


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "line 1"),
        ('{"cards": []}', "cards"),
        ('{"cards": [{"preset": "A101", "pci_address": "0000:41:00.0"}]}', "A101"),
        ('{"cards": [{"preset": "A100", "pci_address": "41:00"}]}', "cards.0.pci_address"),
        ('{"cards": [{"preset": "A100"}]}', "cards.0.pci_address"),
        (
            '{"cards": [{"preset": "A100", "pci_address": "0000:41:00.0"},'
            ' {"preset": "T4", "pci_address": "00000000:41:00.0"}]}',
            "more than one card",
        ),
        (
            '{"cards": [{"preset": "A100", "pci_address": "0000:41:00.0", "uuid": "x"}]}',
            "cards.0.uuid",
        ),
    ],
)
def test_wrong_cards_are_refused_by_the_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "cards.json"
    path.write_text(text)
    with pytest.raises(CardsError) as caught:
        load_cards(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
