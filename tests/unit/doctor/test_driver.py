# SPDX-License-Identifier: Apache-2.0
"""The driver by the kernel's word and by NVML's."""

import time
from dataclasses import replace
from typing import Any

import pytest

from gpuwarden.doctor import driver
from gpuwarden.doctor.findings import Verdict
from gpuwarden.doctor.places import Absence
from tests.unit.doctor.machine import Made, by_name, plan, unit, verdicts

CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Oct 14 2026\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  470.86.15  Release Build  (x@y)\n"
NVML = driver.NvmlAnswer("580.159.04", "13.580.159.04", ["GPU-00000000"], [], persistent=False)
FACTS = driver.DriverFacts(
    is_root=True,
    simulated=False,
    kernel=CLOSED,
    nvml=NVML,
    planned=("GPU-00000000",),
    persistenced=True,
)


def verdict(name: str, facts: driver.DriverFacts) -> Verdict:
    return verdicts(driver.judge(facts))[name]


def test_both_kinds_of_module_tell_their_version() -> None:
    assert driver.kernel_version(CLOSED) == "580.159.04"
    assert driver.kernel_version(OPEN) == "470.86.15"
    assert driver.kernel_version("") == ""


def test_a_healthy_driver_is_good_throughout() -> None:
    assert set(verdicts(driver.judge(FACTS)).values()) == {Verdict.GOOD}
    assert by_name(driver.judge(FACTS))["NVML"].found == "13.580.159.04, 1 card"


@pytest.mark.parametrize(
    ("facts", "expected", "mend"),
    [
        (replace(FACTS, kernel=Absence.MISSING, nvml="none"), Verdict.WRONG, "modprobe nvidia"),
        (replace(FACTS, kernel=CLOSED.replace("580", "570")), Verdict.WRONG, "systemctl reboot"),
        (replace(FACTS, nvml=f"... {driver.MISMATCH} ..."), Verdict.WRONG, "systemctl reboot"),
        (replace(FACTS, kernel=OPEN, nvml="no"), Verdict.DOUBTFUL, "apt install nvidia-driver"),
        (replace(FACTS, kernel=Absence.DENIED), Verdict.UNKNOWN, "nvidia-smi"),
        (replace(FACTS, simulated=True), Verdict.NOT_APPLICABLE, ""),
    ],
)
def test_the_drivers_version(facts: driver.DriverFacts, expected: Verdict, mend: str) -> None:
    finding = by_name(driver.judge(facts))["NVIDIA driver"]
    assert finding.verdict is expected
    assert finding.mend.startswith(mend)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (replace(FACTS, nvml="it did not answer within 5 s"), Verdict.WRONG),
        (replace(FACTS, nvml="permission denied", is_root=False), Verdict.UNKNOWN),
        (replace(FACTS, nvml="no library", kernel=Absence.MISSING), Verdict.UNKNOWN),
        (
            replace(FACTS, nvml="hangs", kernel=Absence.MISSING, simulated=True),
            Verdict.WRONG,
        ),
        (replace(FACTS, nvml=replace(NVML, uuids=[])), Verdict.WRONG),
        (replace(FACTS, nvml=replace(NVML, uuids=[]), planned=()), Verdict.WRONG),
        (replace(FACTS, nvml=replace(NVML, faults=["card 1 is lost"])), Verdict.WRONG),
        (replace(FACTS, planned=("GPU-00000000", "GPU-00000001")), Verdict.WRONG),
        (replace(FACTS, nvml=replace(NVML, nvml_version=None)), Verdict.GOOD),
    ],
)
def test_nvml_shows_every_planned_card(facts: driver.DriverFacts, expected: Verdict) -> None:
    assert verdict("NVML", facts) is expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (replace(FACTS, persistenced=False), Verdict.DOUBTFUL),
        (
            replace(FACTS, persistenced=False, nvml=replace(NVML, persistent=True)),
            Verdict.GOOD,
        ),
        (replace(FACTS, persistenced=None, nvml="no"), Verdict.UNKNOWN),
        (replace(FACTS, kernel=Absence.MISSING, nvml="no"), Verdict.NOT_APPLICABLE),
        (replace(FACTS, simulated=True), Verdict.NOT_APPLICABLE),
    ],
)
def test_persistence(facts: driver.DriverFacts, expected: Verdict) -> None:
    assert verdict("persistence daemon", facts) is expected


def test_a_driver_that_hangs_is_left_behind() -> None:
    def hang() -> dict[str, Any]:
        time.sleep(60)  # the driver that never answers
        return {}

    answer = driver.ask_in_child(hang, 0.05)
    assert isinstance(answer, str)
    assert "did not answer" in answer


def test_the_units_own_library_is_the_one_that_is_asked(made: Made) -> None:
    environment = "A=1 GPUWARDEN_NVML_LIBRARY=/nowhere/libnvidia-ml.so.1"
    units = {"medgemma-numa.service": unit(environment=environment)}
    facts = driver.read(made.node(plan=plan(), units=units))
    assert facts.simulated
    assert isinstance(facts.nvml, str)
    assert "/nowhere/libnvidia-ml.so.1" in facts.nvml
    assert facts.planned == ("GPU-00000000",)
