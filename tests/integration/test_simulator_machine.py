# SPDX-License-Identifier: Apache-2.0
"""Cards on a clock of the test's own, read through NVML: hours pass in milliseconds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwarden.plant.physics import Environment
from gpuwarden.simulator.configuration import CardsFile
from gpuwarden.simulator.machine import Fault, Machine, RefusedError
from gpuwarden.simulator.state_file import StateFile
from tests.integration.simulation import Caller

GPU = "gpu:0"
CARDS = CardsFile.model_validate(
    {
        "cards": [
            {"preset": "A100", "pci_address": "0000:41:00.0"},
            {"preset": "3090", "pci_address": "0000:81:00.0"},
        ]
    }
).cards


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    file = StateFile(tmp_path / "state")
    file.open(CARDS)
    return file


@pytest.fixture
def machines(file: StateFile) -> list[Machine]:
    machines = [Machine(index, entry, file) for index, entry in enumerate(CARDS)]
    for machine in machines:
        machine.publish()
    return machines


@pytest.fixture
def nvml(tmp_path: Path, library: Path, machines: list[Machine]) -> Iterator[Caller]:
    caller = Caller(library, tmp_path / "state")
    assert caller("nvmlInit") is None
    yield caller
    caller.end()


def test_a_hot_a100_crosses_the_default_alert_and_a_lower_limit_cools_it(
    machines: list[Machine], nvml: Caller
) -> None:
    machine = machines[0]
    machine.world = replace(machine.world, ambient_celsius=45)
    machine.base_load = 1.0
    machine.step(600)
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) >= 78
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    machine.step(300)
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) < 75
    assert nvml("nvmlDeviceGetPowerUsage", GPU) == pytest.approx(200_000, abs=1000)


def test_a_card_past_shutdown_is_lost_its_neighbour_is_not(
    machines: list[Machine], nvml: Caller
) -> None:
    assert nvml("nvmlDeviceGetName", GPU) == "NVIDIA A100 80GB PCIe"
    machines[0].world = Environment(ambient_celsius=110)
    for machine in machines:
        machine.step(300)
    assert Fault.LOST in machines[0].faults
    assert nvml("nvmlDeviceGetName", GPU) == {"error": "GpuIsLost"}
    assert nvml("nvmlDeviceGetTemperature", "gpu:1", 0) < 40


def test_throttling_shows_in_reasons_and_counters(machines: list[Machine], nvml: Caller) -> None:
    machine = machines[1]
    machine.world = replace(machine.world, ambient_celsius=45, resistance_factor=1.6)
    machine.base_load = 1.0
    machine.step(900)
    assert nvml("nvmlDeviceGetCurrentClocksEventReasons", "gpu:1") & 0x20
    power, software = nvml("fields", "gpu:1", 74, 269)
    assert power["long"] > 0
    assert software["long"] > 60 * 10**9
    thermal = nvml("nvmlDeviceGetViolationStatus", "gpu:1", 1)
    assert thermal["violationTime"] >= software["long"]


def test_energy_and_average_agree_over_an_hour(machines: list[Machine], nvml: Caller) -> None:
    machine = machines[1]
    machine.base_load = 0.5
    machine.step(60)
    before = nvml("nvmlDeviceGetTotalEnergyConsumption", "gpu:1")
    machine.step(3600)
    joules = (nvml("nvmlDeviceGetTotalEnergyConsumption", "gpu:1") - before) / 1000
    watts = nvml("nvmlDeviceGetPowerUsage", "gpu:1") / 1000
    assert joules / 3600 == pytest.approx(watts, rel=0.03)


def test_a_new_daemon_takes_over_a_warm_card_with_its_settings(
    file: StateFile, machines: list[Machine], tmp_path: Path
) -> None:
    machines[0].base_load = 1.0
    machines[0].set_external_limit(200)
    machines[0].step(600)
    sink = machines[0].plant.sink_celsius
    successor = StateFile(tmp_path / "state")
    successor.open(CARDS)
    assert successor.adopted
    taken_over = Machine(0, CARDS[0], successor)
    assert taken_over.plant.sink_celsius == pytest.approx(sink, abs=1)
    assert taken_over.settings().power_limit_watts == 200
    assert taken_over.plant.energy_joules == pytest.approx(machines[0].plant.energy_joules)


def test_a_write_that_was_cut_off_is_mended_by_the_next_daemon(
    file: StateFile, nvml: Caller, tmp_path: Path
) -> None:
    assert nvml("nvmlDeviceGetName", GPU)
    file.state.cards[0].sequence += 1
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) == {"error": "Unknown"}
    successor = StateFile(tmp_path / "state")
    successor.open(CARDS)
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) > 20


def test_the_limit_of_somebody_else_is_checked_too(machines: list[Machine]) -> None:
    with pytest.raises(RefusedError, match="150 to 300 W"):
        machines[0].set_external_limit(301)
