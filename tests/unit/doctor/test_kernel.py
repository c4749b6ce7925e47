# SPDX-License-Identifier: Apache-2.0
"""IOMMU, control groups, systemd, clock."""

from dataclasses import replace

import pytest

from gpuwarden.doctor import kernel
from gpuwarden.doctor.commands import Answer
from gpuwarden.doctor.findings import Verdict
from gpuwarden.doctor.places import Absence
from tests.unit.doctor.machine import Made, by_name, verdicts

CARD = "/sys/bus/pci/devices/0000:3b:00.0"
FACTS = kernel.KernelFacts(
    iommus=0,
    domains={},
    controllers="cpuset cpu io memory hugetlb pids",
    is_booted=True,
    in_container=False,
    units_problem="",
    systemctl=Answer("systemd 252 (252.38-1~deb12u1)\n+PAM"),
    clock_error_microseconds=20_000,
)


def verdict(name: str, facts: kernel.KernelFacts) -> Verdict:
    return verdicts(kernel.judge(facts))[name]


def test_debian_12_as_it_comes_is_good() -> None:
    assert set(verdicts(kernel.judge(FACTS)).values()) == {Verdict.GOOD}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("DMA", Verdict.DOUBTFUL),
        ("DMA-FQ", Verdict.GOOD),
        ("identity", Verdict.GOOD),
        (None, Verdict.UNKNOWN),
    ],
)
def test_an_iommu_is_judged_by_how_it_translates_the_cards(
    made: Made, kind: str | None, expected: Verdict
) -> None:
    (made.root / "sys/class/iommu/dmar0").mkdir(parents=True)
    made.write(f"{CARD}/vendor", "0x10de\n")
    made.write(f"{CARD}/class", "0x030200\n")
    made.write("/sys/bus/pci/devices/0000:3b:00.1/vendor", "0x10de\n")  # its audio
    made.write("/sys/bus/pci/devices/0000:3b:00.1/class", "0x040300\n")
    if kind:
        made.write(f"{CARD}/iommu_group/type", f"{kind}\n")
    facts = kernel.read(made.node())
    assert list(facts.domains) == ["0000:3b:00.0"]
    assert verdict("IOMMU", facts) is expected


@pytest.mark.parametrize(
    ("controllers", "in_container", "expected"),
    [
        ("cpuset cpu io pids", False, Verdict.WRONG),
        (Absence.MISSING, False, Verdict.WRONG),
        (Absence.MISSING, True, Verdict.UNKNOWN),
        (Absence.DENIED, False, Verdict.UNKNOWN),
    ],
)
def test_control_groups(controllers: str | Absence, in_container: bool, expected: Verdict) -> None:
    facts = replace(FACTS, controllers=controllers, in_container=in_container)
    assert verdict("control groups", facts) is expected


def test_a_controller_that_is_missing_is_named() -> None:
    facts = replace(FACTS, controllers="cpuset cpu io pids")
    assert by_name(kernel.judge(facts))["control groups"].found == "version 2 without memory"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("systemd 257 (257.1)", Verdict.GOOD),
        ("systemd 250 (250)", Verdict.DOUBTFUL),
        ("systemd 247 (247.3)", Verdict.WRONG),
        ("", Verdict.UNKNOWN),
    ],
)
def test_the_version_of_systemd(text: str, expected: Verdict) -> None:
    assert verdict("systemd", replace(FACTS, systemctl=Answer(text, "failed"))) is expected


def test_a_systemd_that_does_not_answer_is_told_in_its_words() -> None:
    silent = replace(FACTS, units_problem="systemctl show: timed out after 5 seconds")
    finding = by_name(kernel.judge(silent))["systemd"]
    assert (finding.verdict, finding.found) == (Verdict.UNKNOWN, silent.units_problem)


def test_without_systemd_a_machine_is_wrong_and_a_container_unknown(made: Made) -> None:
    assert verdict("systemd", kernel.read(made.node())) is Verdict.WRONG
    made.write("/.dockerenv", "")
    assert verdict("systemd", kernel.read(made.node())) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("error", "expected"),
    [(0, Verdict.GOOD), (16_000_000, Verdict.DOUBTFUL), (None, Verdict.UNKNOWN)],
)
def test_a_clock_that_runs_free_is_a_doubt(error: int | None, expected: Verdict) -> None:
    assert verdict("clock", replace(FACTS, clock_error_microseconds=error)) is expected


def test_this_kernel_tells_its_clocks_error() -> None:
    error = kernel.clock_error_microseconds()
    assert error is None or 0 <= error <= kernel.LARGEST_CLOCK_ERROR_MICROSECONDS
