import json
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import PlanData
from gpuwarden.nvml.library import Library
from gpuwarden.thermal.observation import NotSeen, Seen, Trouble
from gpuwarden.thermal.sampler import Sampler
from tests.machines import card
from tests.unit.nvml.driver import LOST, NOT_SUPPORTED, UNKNOWN, Fails, StandInDriver, attach

ANSWERS: dict[str, Any] = {
    "nvmlInitWithFlags": None,
    "nvmlShutdown": None,
    "nvmlDeviceGetHandleByPciBusId_v2": None,
    "nvmlDeviceGetUUID": "GPU-00000000",
    "nvmlDeviceGetTemperatureV": {"temperature": 50},
    "nvmlDeviceGetPowerManagementLimit": 350000,
}


class Bench:
    """A sampler, its driver and its clock."""

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
        self.driver = attach(StandInDriver(dict(ANSWERS)), monkeypatch)
        self.now = 100.0
        library = Library("stand-in", simulated=False)
        self.sampler = Sampler(0, self.plan_file, library, lambda: self.now)

    def attempt(self, after_seconds: float = 0.0) -> Seen | NotSeen:
        self.now += after_seconds
        return self.sampler.attempt()

    def trouble(self, after_seconds: float = 0.0) -> Trouble:
        observation = self.attempt(after_seconds)
        assert isinstance(observation, NotSeen)
        assert observation.text
        return observation.trouble

    def count(self, function: str) -> int:
        return self.driver.calls.count(function)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_card_is_opened_once_and_sampled_each_time(bench: Bench) -> None:
    for _ in range(5):
        observation = bench.attempt(0.2)
        assert isinstance(observation, Seen)
        assert observation.card.uuid == "GPU-00000000"
        assert observation.sample.temperature_celsius == 50
    assert bench.count("nvmlInitWithFlags") == 1


def test_what_changes_slowly_is_read_once_a_second(bench: Bench) -> None:
    for _ in range(21):
        bench.attempt(0.25)
    assert bench.count("nvmlDeviceGetPowerManagementLimit") == 6


def test_a_lost_card_is_opened_anew_at_the_next_attempt(bench: Bench) -> None:
    bench.attempt()
    bench.driver.answers["nvmlDeviceGetTemperatureV"] = Fails(LOST)
    assert bench.trouble() is Trouble.LOST
    assert bench.count("nvmlShutdown") == 1
    assert bench.trouble() is Trouble.LOST
    bench.driver.answers["nvmlDeviceGetTemperatureV"] = {"temperature": 50}
    assert isinstance(bench.attempt(), Seen)


def test_another_card_in_its_place_is_not_taken_for_it(bench: Bench) -> None:
    bench.driver.answers["nvmlDeviceGetUUID"] = "GPU-another"
    bench.driver.answers["nvmlDeviceGetHandleByUUID"] = Fails(6)
    assert bench.trouble() is Trouble.LOST


def test_a_sensor_that_fails_is_asked_again_with_the_card_open(bench: Bench) -> None:
    bench.attempt()
    bench.driver.answers["nvmlDeviceGetTemperatureV"] = Fails(UNKNOWN)
    assert bench.trouble(0.2) is Trouble.SENSOR
    assert bench.trouble(0.2) is Trouble.SENSOR
    assert bench.count("nvmlShutdown") == 0


def test_a_card_that_fails_for_long_is_opened_anew(bench: Bench) -> None:
    bench.attempt()
    bench.driver.answers["nvmlDeviceGetTemperatureV"] = Fails(UNKNOWN)
    for _ in range(10):
        bench.attempt(1.0)
    assert bench.count("nvmlShutdown") == 1
    bench.driver.answers["nvmlDeviceGetTemperatureV"] = {"temperature": 50}
    assert isinstance(bench.attempt(1.0), Seen)


@pytest.mark.parametrize("answer", [Fails(NOT_SUPPORTED), {"temperature": 0}, {"temperature": 255}])
def test_what_is_no_temperature_is_a_sensor_in_trouble(bench: Bench, answer: Any) -> None:
    bench.driver.answers["nvmlDeviceGetTemperatureV"] = answer
    assert bench.trouble() is Trouble.SENSOR


def test_a_driver_that_is_gone_is_no_driver(bench: Bench) -> None:
    bench.driver.answers["nvmlInitWithFlags"] = Fails(9)
    assert bench.trouble() is Trouble.NO_DRIVER


def test_without_a_plan_there_is_no_card_to_look_for(bench: Bench) -> None:
    bench.plan_file.unlink()
    assert bench.trouble() is Trouble.NO_PLAN


def test_a_plan_of_another_boot_is_none(bench: Bench) -> None:
    document = json.loads(bench.plan_file.read_text())
    bench.plan_file.write_text(json.dumps(document | {"boot_id": "another"}))
    assert bench.trouble() is Trouble.NO_PLAN


def test_a_card_that_the_plan_lacks_is_named(bench: Bench, tmp_path: Path) -> None:
    observation = Sampler(5, bench.plan_file, Library("stand-in", False)).attempt()
    assert isinstance(observation, NotSeen)
    assert "no GPU 5" in observation.text
