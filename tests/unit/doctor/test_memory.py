# SPDX-License-Identifier: Apache-2.0
"""Huge pages, swap, zswap."""

import pytest

from gpuwarden.config import Configuration
from gpuwarden.config.models import WorkersSettings
from gpuwarden.doctor import memory
from gpuwarden.doctor.findings import Verdict
from tests.unit.doctor.machine import GROUP, WORKER_UNIT, Made, by_name, plan, unit, verdicts

MODEL = Configuration(workers=WorkersSettings(engine="site.gemma:Gemma"))
SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"
DISK = f"{SWAPS}/dev/sda2 partition 999 0 -2\n"
SWAP_LIMIT = f"/sys/fs/cgroup{GROUP}/memory.swap.max"
UNITS = {WORKER_UNIT: unit(group=GROUP)}


@pytest.mark.parametrize(
    ("enabled", "configuration", "verdict"),
    [
        ("always madvise [never]", MODEL, Verdict.GOOD),
        ("always [madvise] never", MODEL, Verdict.GOOD),
        ("[always] madvise never", MODEL, Verdict.WRONG),
        ("[always] madvise never", Configuration(), Verdict.DOUBTFUL),
    ],
)
def test_always_is_wrong_only_where_a_model_suffers(
    made: Made, enabled: str, configuration: Configuration, verdict: Verdict
) -> None:
    made.write(memory.THP, f"{enabled}\n")
    finding = by_name(memory.examine(made.node(configuration=configuration)))[
        "transparent huge pages"
    ]
    assert finding.verdict is verdict
    assert ("echo never > " in finding.mend) == (verdict is not Verdict.GOOD)


@pytest.mark.parametrize(
    ("meminfo", "verdict"),
    [
        ("MemTotal: 1000000 kB\nHugePages_Total: 0\n", Verdict.GOOD),
        (
            "MemTotal: 1000000 kB\nHugePages_Total: 100\nHugePages_Free: 90\n"
            "HugePages_Rsvd: 80\nHugepagesize: 2048 kB\n",
            Verdict.GOOD,
        ),
        (
            "MemTotal: 1000000 kB\nHugePages_Total: 100\nHugePages_Free: 90\n"
            "HugePages_Rsvd: 0\nHugepagesize: 2048 kB\n",
            Verdict.DOUBTFUL,
        ),
        ("nonsense", Verdict.GOOD),
    ],
)
def test_huge_pages_that_nobody_uses_are_a_doubt(
    made: Made, meminfo: str, verdict: Verdict
) -> None:
    made.write("/proc/meminfo", meminfo)
    assert verdicts(memory.examine(made.node()))["reserved huge pages"] is verdict


@pytest.mark.parametrize(
    ("swaps", "limit", "verdict"),
    [
        (SWAPS, None, Verdict.GOOD),
        (DISK, "0", Verdict.GOOD),
        (DISK, "max", Verdict.WRONG),
        (DISK, None, Verdict.UNKNOWN),
    ],
)
def test_swap_is_wrong_only_where_patients_data_may_reach_it(
    made: Made, swaps: str, limit: str | None, verdict: Verdict
) -> None:
    made.write("/proc/swaps", swaps)
    if limit:
        made.write(SWAP_LIMIT, f"{limit}\n")
    finding = by_name(memory.examine(made.node(plan=plan(), units=UNITS)))["swap"]
    assert finding.verdict is verdict
    if verdict is Verdict.WRONG:
        assert finding.found == f"/dev/sda2, and {WORKER_UNIT} may use it"
        assert f"systemctl cat {WORKER_UNIT}" in finding.mend


@pytest.mark.parametrize(
    ("swaps", "enabled", "verdict"),
    [
        (SWAPS, "N", Verdict.NOT_APPLICABLE),
        (f"{SWAPS}/dev/zram0 partition 999 0 100\n", "N", Verdict.NOT_APPLICABLE),
        (DISK, "Y", Verdict.GOOD),
        (DISK, "N", Verdict.DOUBTFUL),
        (DISK, None, Verdict.NOT_APPLICABLE),
    ],
)
def test_zswap_matters_where_there_is_a_swap_disk(
    made: Made, swaps: str, enabled: str | None, verdict: Verdict
) -> None:
    made.write("/proc/swaps", swaps)
    if enabled:
        made.write(memory.ZSWAP, f"{enabled}\n")
    assert verdicts(memory.examine(made.node()))["zswap"] is verdict


def test_a_machine_without_these_files_is_unknown_and_never_wrong(made: Made) -> None:
    assert verdicts(memory.examine(made.node())) == {
        "transparent huge pages": Verdict.NOT_APPLICABLE,
        "reserved huge pages": Verdict.UNKNOWN,
        "swap": Verdict.UNKNOWN,
        "zswap": Verdict.NOT_APPLICABLE,
    }
