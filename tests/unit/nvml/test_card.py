# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pynvml
import pytest

from gpuwarden.nvml.card import CardReader, ClockEventCounters, identify
from gpuwarden.nvml.errors import CardLostError, DriverError, NvmlError
from gpuwarden.nvml.vocabulary import PowerKind
from tests.unit.nvml.driver import LOST, NOT_SUPPORTED, UNKNOWN, Fails, StandInDriver
from tests.unit.nvml.driver import attach as attach_driver


def threshold(handle: object, kind: Any, output: object) -> Any:
    return {0: 95, 1: 89, 2: 95, 3: 87}.get(kind.value, Fails(NOT_SUPPORTED))


# What an idle H200 answered (the survey of a real one).
H200: dict[str, Any] = {
    "nvmlDeviceGetTemperatureV": {"temperature": 38},
    "nvmlDeviceGetUtilizationRates": {"gpu": 40, "memory": 0},
    "nvmlDeviceGetCurrentClocksEventReasons": 0x24,
    "nvmlDeviceGetPowerManagementLimit": 700000,
    "nvmlDeviceGetMemoryInfo": {"total": 150754820096, "free": 150109880320, "used": 644939776},
    "nvmlDeviceGetPowerManagementLimitConstraints": (200000, 700000),
    "nvmlDeviceGetPowerManagementDefaultLimit": 700000,
    "nvmlDeviceGetMarginTemperature": {"marginTemperature": 49},
    "nvmlDeviceGetTemperatureThreshold": threshold,
    "nvmlDeviceGetPciInfo_v3": {"busId": b"00000000:3B:00.0"},
    "nvmlDeviceGetMinorNumber": 3,
    "nvmlDeviceGetIndex": 1,
    "nvmlDeviceGetUUID": "GPU-1",
    "nvmlDeviceGetName": "NVIDIA H200",
}
H200_FIELDS: dict[int, Any] = {82: 36, 186: 129035, 193: -8, 194: -2, 195: 0, 196: 0, 230: 1}


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_driver(driver: StandInDriver) -> CardReader:
        attach_driver(driver, monkeypatch)
        return CardReader("card GPU-1", pynvml.c_nvmlDevice_t())

    return with_driver


def changed(**answers: Any) -> dict[str, Any]:
    return H200 | answers


def without(function: str) -> dict[str, Any]:
    return {name: answer for name, answer in H200.items() if name != function}


def test_a_modern_card_gives_every_reading(attach: Any) -> None:
    reader = attach(StandInDriver(H200, H200_FIELDS))
    sample, condition = reader.sample(), reader.condition()
    assert sample.temperature_celsius == 38
    assert sample.memory_temperature_celsius == 36
    assert (sample.power_watts, sample.power_kind) == (129.035, PowerKind.INSTANTANEOUS)
    assert sample.utilization == 0.4
    assert sample.clock_event_reasons == ("software-power-cap", "software-thermal-slowdown")
    assert condition.power_limit_watts == 700
    assert condition.vram_used_bytes == 644939776
    assert condition.vram_total_bytes == 150754820096
    assert condition.recovery_action == "gpu-reset"


def test_a_modern_card_names_its_limits(attach: Any) -> None:
    limits = attach(StandInDriver(H200, H200_FIELDS)).limits()
    assert limits.maximum_operating_celsius == 87
    assert limits.slowdown_celsius == 89
    assert limits.shutdown_celsius == 95
    assert limits.memory_maximum_celsius == 95
    assert limits.power_minimum_watts == 200
    assert limits.power_maximum_watts == 700
    assert limits.power_default_watts == 700
    assert limits.notes == ()


def test_a_driver_without_named_thresholds_has_them_as_offsets(attach: Any) -> None:
    answers = without("nvmlDeviceGetTemperatureThreshold")
    limits = attach(StandInDriver(answers, H200_FIELDS)).limits()
    assert limits.maximum_operating_celsius == 87
    assert limits.slowdown_celsius == 89
    assert limits.shutdown_celsius == 95
    assert limits.memory_maximum_celsius is None


def test_an_old_driver_answers_by_the_older_calls(attach: Any) -> None:
    driver = StandInDriver(
        {
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 64000,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 1,
        }
    )
    reader = attach(driver)
    sample, condition, limits = reader.sample(), reader.condition(), reader.limits()
    assert sample.temperature_celsius == 61
    assert sample.memory_temperature_celsius is None
    assert (sample.power_watts, sample.power_kind) == (64, PowerKind.AVERAGE)
    assert sample.utilization is None
    assert sample.clock_event_reasons == ("idle",)
    assert condition.power_limit_watts is None
    assert condition.vram_total_bytes is None
    assert condition.recovery_action == "unknown"
    assert limits.maximum_operating_celsius is None


def test_a_reading_that_a_card_lacks_is_asked_for_once(attach: Any) -> None:
    answers = changed(nvmlDeviceGetUtilizationRates=Fails(NOT_SUPPORTED))
    driver = StandInDriver(answers, {82: Fails(NOT_SUPPORTED), 186: Fails(NOT_SUPPORTED)})
    reader = attach(driver)
    for _ in range(3):
        assert reader.sample().utilization is None
    assert driver.calls.count("nvmlDeviceGetUtilizationRates") == 1
    assert driver.calls.count("nvmlDeviceGetFieldValues") == 1
    assert driver.calls.count("nvmlDeviceGetTemperatureV") == 3


def test_a_reading_that_fails_once_is_asked_for_again(attach: Any) -> None:
    driver = StandInDriver(changed(nvmlDeviceGetUtilizationRates=Fails(UNKNOWN)), H200_FIELDS)
    reader = attach(driver)
    assert reader.sample().utilization is None
    driver.answers = H200
    assert reader.sample().utilization == 0.4


def test_a_temperature_that_cannot_be_read_is_an_error(attach: Any) -> None:
    reader = attach(StandInDriver(changed(nvmlDeviceGetTemperatureV=Fails(UNKNOWN)), H200_FIELDS))
    with pytest.raises(DriverError, match="nvmlDeviceGetTemperatureV"):
        reader.sample()


def test_without_a_temperature_a_card_has_the_limits_that_it_says_in_degrees(attach: Any) -> None:
    answers = changed(nvmlDeviceGetTemperatureV=Fails(UNKNOWN))
    limits = attach(StandInDriver(answers, H200_FIELDS)).limits()
    assert (limits.maximum_operating_celsius, limits.shutdown_celsius) == (87, 95)
    assert limits.power_maximum_watts == 700


def test_a_card_without_a_sensor_has_no_temperature(attach: Any) -> None:
    answers = changed(nvmlDeviceGetTemperatureV=Fails(NOT_SUPPORTED))
    assert attach(StandInDriver(answers, H200_FIELDS)).sample().temperature_celsius is None


@pytest.mark.parametrize("function", sorted(H200))
def test_a_lost_card_is_lost_whatever_is_asked(attach: Any, function: str) -> None:
    reader = attach(StandInDriver(changed(**{function: Fails(LOST)}), H200_FIELDS))
    with pytest.raises(CardLostError, match="reset it or reboot"):
        reader.sample()
        reader.condition()
        reader.limits()
        identify("card 1", pynvml.c_nvmlDevice_t())


def test_a_card_says_who_it_is_in_the_kernels_words(attach: Any) -> None:
    attach(StandInDriver(H200))
    identity = identify("card 1", pynvml.c_nvmlDevice_t())
    assert (identity.index, identity.uuid, identity.minor) == (1, "GPU-1", 3)
    assert identity.pci_address == "0000:3b:00.0"


def test_a_card_without_a_minor_number_has_none(attach: Any) -> None:
    attach(StandInDriver(changed(nvmlDeviceGetMinorNumber=Fails(NOT_SUPPORTED))))
    assert identify("card 1", pynvml.c_nvmlDevice_t()).minor is None


def test_every_error_is_one_of_ours(attach: Any) -> None:
    for code in [*range(1, 31), 999]:
        answers = changed(nvmlDeviceGetUUID=Fails(code))
        attach(StandInDriver(answers))
        with pytest.raises(NvmlError, match="card 1: nvmlDeviceGetUUID"):
            identify("card 1", pynvml.c_nvmlDevice_t())


def test_counters_are_seconds_and_the_margin_is_read_with_them(attach: Any) -> None:
    counted = {74: 1_500_000_000, 269: 2_000_000_000, 270: 0, 271: 250_000_000}
    condition = attach(StandInDriver(H200, H200_FIELDS | counted)).condition()
    assert condition.counters == ClockEventCounters(1.5, 2.0, 0.0, 0.25)
    assert condition.margin_celsius == 49


def test_an_older_driver_counts_by_policy(attach: Any) -> None:
    def violation(handle: object, policy: Any, output: object) -> dict[str, int]:
        return {
            "referenceTime": 1,
            "violationTime": {0: 3_000_000_000, 1: 500_000_000}[policy.value],
        }

    answers = changed(nvmlDeviceGetViolationStatus=violation)
    condition = attach(StandInDriver(answers, H200_FIELDS)).condition()
    assert condition.counters == ClockEventCounters(3.0, 0.5, None, None)


@pytest.mark.parametrize(
    ("generation", "compute", "kind"),
    [
        (6, (7, 5), PowerKind.INSTANTANEOUS),  # Turing
        (7, (8, 0), PowerKind.INSTANTANEOUS),  # GA100
        (7, (8, 6), PowerKind.AVERAGE),
        (9, (9, 0), PowerKind.AVERAGE),
    ],
)
def test_power_usage_is_an_average_from_ampere_on_but_for_ga100(
    attach: Any, generation: int, compute: tuple[int, int], kind: PowerKind
) -> None:
    answers = changed(
        nvmlDeviceGetPowerUsage=200_000,
        nvmlDeviceGetArchitecture=generation,
        nvmlDeviceGetCudaComputeCapability=compute,
    )
    sample = attach(StandInDriver(answers, {})).sample()
    assert (sample.power_watts, sample.power_kind) == (200, kind)


def test_watts_that_cannot_be_are_not_believed(attach: Any) -> None:
    answers = changed(nvmlDeviceGetPowerUsage=130_000)
    driver = StandInDriver(answers, H200_FIELDS | {186: 1_100_000})
    reader = attach(driver)
    reader.limits()
    assert (reader.sample().power_watts, reader.sample().power_kind) == (130, PowerKind.AVERAGE)
    driver.answers = changed(nvmlDeviceGetPowerUsage=0)
    assert reader.sample().power_watts is None
    driver.fields = H200_FIELDS | {186: 1_000_000}
    assert reader.sample().power_watts == 1000, "a peak above the limit is real"
