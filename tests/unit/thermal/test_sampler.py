# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import PlanData
from gpuwarden.nvml.library import Library
from gpuwarden.nvml.vocabulary import PowerKind
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.ledger import Teller
from gpuwarden.thermal.observation import NotSeen, Seen, Trouble, reading_of
from gpuwarden.thermal.sampler import Sampler
from tests.machines import card
from tests.unit.nvml.driver import LOST, NOT_SUPPORTED, UNKNOWN, Fails, StandInDriver, attach
from tests.unit.thermal.readings import seen

ANSWERS: dict[str, Any] = {
    "nvmlInitWithFlags": None,
    "nvmlShutdown": None,
    "nvmlDeviceGetHandleByPciBusId_v2": None,
    "nvmlDeviceGetUUID": "GPU-00000000",
    "nvmlDeviceGetTemperatureV": {"temperature": 50},
    "nvmlDeviceGetPowerManagementLimit": 350000,
    "nvmlDeviceGetPowerManagementLimitConstraints": (100000, 350000),
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
        self.teller = Teller(0)
        library = Library("stand-in", simulated=False)
        self.sampler = Sampler(0, self.plan_file, library, lambda: self.now, self.teller)

    def attempt(self, after_seconds: float = 0.0) -> Seen | NotSeen:
        self.now += after_seconds
        return self.sampler.attempt()

    def trouble(self, after_seconds: float = 0.0) -> Trouble:
        observation = self.attempt(after_seconds)
        assert isinstance(observation, NotSeen)
        assert observation.text
        return observation.trouble

    def seen(self, after_seconds: float = 0.2) -> Seen:
        observation = self.attempt(after_seconds)
        assert isinstance(observation, Seen), observation
        return observation

    def read(self, celsius: int, watts: int = 300) -> None:
        """What the sensors say from now on."""
        self.driver.answers["nvmlDeviceGetTemperatureV"] = {"temperature": celsius}
        self.driver.answers["nvmlDeviceGetPowerUsage"] = watts * 1000

    def told(self, event: Event) -> list[str]:
        return [each.message for each in self.teller.fetch() if each.event is event]

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


def test_a_card_whose_sensor_fails_is_opened_all_the_same_and_its_limits_follow(
    bench: Bench,
) -> None:
    bench.driver.answers["nvmlDeviceGetMarginTemperature"] = {"marginTemperature": 30}
    bench.driver.fields = {193: -8, 194: -2, 196: 0}
    bench.driver.answers["nvmlDeviceGetTemperatureV"] = Fails(UNKNOWN)
    assert bench.trouble() is Trouble.SENSOR
    assert bench.sampler.card is not None
    assert bench.sampler.limits.shutdown_celsius is None
    bench.read(50)
    assert bench.seen().limits.shutdown_celsius == 88
    assert bench.count("nvmlInitWithFlags") == 1


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


def test_a_jump_without_power_is_doubted_and_told_once_until_it_lasts(bench: Bench) -> None:
    bench.read(60)
    for _ in range(10):
        bench.seen()
    bench.read(100)
    assert bench.trouble(0.2) is Trouble.SENSOR
    assert bench.trouble(0.2) is Trouble.SENSOR
    assert bench.seen().sample.temperature_celsius == 100
    assert len(bench.told(Event.SENSOR_IMPLAUSIBLE)) == 1


def test_a_jump_with_power_is_real(bench: Bench) -> None:
    bench.read(40, watts=60)
    for _ in range(10):
        bench.seen()
    bench.read(65, watts=340)
    assert bench.seen().sample.temperature_celsius == 65


def test_a_memory_sensor_that_falls_silent_is_trouble_after_a_while(bench: Bench) -> None:
    bench.driver.fields = {82: 70}
    assert bench.seen().sample.memory_temperature_celsius == 70
    bench.driver.fields = {82: Fails(UNKNOWN)}
    for _ in range(14):
        assert bench.seen().sample.memory_temperature_celsius == 70
    assert bench.trouble(0.5) is Trouble.SENSOR
    bench.driver.fields = {82: 71}
    assert bench.seen().sample.memory_temperature_celsius == 71


def test_a_memory_sensor_that_was_given_up_is_asked_again_when_the_card_is_opened_anew(
    bench: Bench,
) -> None:
    bench.driver.fields = {82: 70}
    bench.seen()
    bench.driver.fields = {82: Fails(NOT_SUPPORTED)}
    for _ in range(14):
        bench.attempt(1.0)
    assert bench.count("nvmlShutdown") == 1
    assert bench.trouble(0.2) is Trouble.SENSOR
    bench.driver.fields = {82: 70}
    for _ in range(11):
        bench.attempt(1.0)
    assert bench.seen().sample.memory_temperature_celsius == 70


def test_a_memory_reading_that_cannot_be_is_replaced_by_the_last(bench: Bench) -> None:
    bench.read(60)
    bench.driver.fields = {82: 70}
    for _ in range(10):
        bench.seen()
    for celsius in (20, 255):
        bench.driver.fields = {82: celsius}
        assert bench.seen().sample.memory_temperature_celsius == 70


def test_a_card_that_never_had_a_memory_sensor_is_no_trouble(bench: Bench) -> None:
    for _ in range(10):
        assert bench.seen(1.0).sample.memory_temperature_celsius is None


def test_the_hotter_of_sensor_and_margin_is_what_a_policy_is_told(bench: Bench) -> None:
    bench.driver.answers["nvmlDeviceGetMarginTemperature"] = {"marginTemperature": 37}
    bench.driver.fields = {196: 0}
    bench.read(50)
    assert reading_of(bench.seen(), 1.0).die_celsius == 50
    bench.driver.answers["nvmlDeviceGetMarginTemperature"] = {"marginTemperature": 7}
    readings = [reading_of(bench.seen(1.0), 1.0).die_celsius for _ in range(4)]
    assert readings == [50, 50, 80, 80]
    (told,) = bench.told(Event.SENSOR_IMPLAUSIBLE)
    assert "says 50 C, but by the margin to its limit it has 80 C" in told


def test_an_average_is_told_as_one(bench: Bench) -> None:
    bench.read(50, watts=200)
    seen = bench.seen()
    assert seen.sample.power_kind is PowerKind.AVERAGE
    reading = reading_of(seen, 7.0)
    assert (reading.at_seconds, reading.power_watts, reading.power_averaged) == (7.0, 200, True)


def test_a_card_that_slows_itself_for_heat_is_told_from_one_that_changes_its_state(
    bench: Bench,
) -> None:
    slowed = []
    for bits in (0x08, 0x00, 0x08, 0x08, 0x88, 0x88, 0x40, 0x20):
        bench.driver.answers["nvmlDeviceGetCurrentClocksEventReasons"] = bits
        slowed.append(reading_of(bench.seen(), 1.0).slowed_by_hardware)
    assert slowed == [False, False, False, True, False, False, True, False]


def test_an_unseen_card_has_no_reading() -> None:
    blank = seen(50.0)
    blank = replace(blank, sample=replace(blank.sample, temperature_celsius=None))
    with pytest.raises(ValueError, match="was not seen"):
        reading_of(blank, 1.0)
