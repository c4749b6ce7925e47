# SPDX-License-Identifier: Apache-2.0
"""Whatever ends a proof, the card has its own back, or the record names what it has."""

import subprocess
import sys

import pytest

from gpuwarden.control.snapshot import boot_id
from gpuwarden.thermal.originals import Record
from tests.integration.cli.proof_bench import DOWN, ROOT, RUN, Bench, limit_of, sm_lock
from tests.integration.simulation import Caller


@pytest.mark.parametrize(
    ("number", "moment"), [("INT", 3), ("INT", 4), ("TERM", 5), ("HUP", 5), ("TERM", 6)]
)
def test_a_signal_leaves_the_card_as_it_was(
    number: str, moment: int, bench: Bench, nvml: Caller
) -> None:
    """The signal comes while systemctl is asked for the ``moment``-th time, between two steps."""
    counter = bench.root / "asked"
    bench.systemctl(
        f"echo x >> {counter}; "
        f'[ "$(wc -l < {counter})" = {moment} ] && kill -{number} $PPID; {DOWN}'
    )
    before = limit_of(nvml)
    code, protocol = bench.proof()
    assert code == 1
    assert protocol["stopped"] == f"interrupted by SIG{number}"
    assert protocol["restored"]
    assert limit_of(nvml) == before
    assert sm_lock(bench) is None
    assert bench.store.load(bench.here).record is None


def test_a_guard_that_comes_in_between_stops_the_proof(bench: Bench, nvml: Caller) -> None:
    counter = bench.root / "asked"
    bench.systemctl(
        f"echo x >> {counter}; [ $(wc -l < {counter}) -lt 5 ] && echo inactive || echo active"
    )
    before = limit_of(nvml)
    code, protocol = bench.proof()
    assert code == 1
    assert "medgemma-thermal@0.service is active" in protocol["stopped"]
    assert [each["step"] for each in protocol["steps"]] == ["read", "write what is there"]
    assert limit_of(nvml) == before


def test_originals_that_can_not_be_kept_stop_the_proof(bench: Bench, nvml: Caller) -> None:
    (bench.root / "var").rmdir()
    (bench.root / "var").write_text("a file in the way")
    before = limit_of(nvml)
    code, protocol = bench.proof()
    assert code == 1
    assert "the originals can't be kept" in protocol["stopped"]
    assert limit_of(nvml) == before


def test_a_killed_proof_leaves_the_originals_on_record(bench: Bench, nvml: Caller) -> None:
    """As long as the card has another value, the record names it; so a guard can put it back."""
    bench.systemctl(DOWN)
    before = limit_of(nvml)
    script = RUN.replace(
        'sys.exit(main(["doctor"',
        "import os, signal\n"
        "from gpuwarden.nvml.control import CardControl\n"
        "put = CardControl.set_power_limit\n"
        "def die(self, milliwatts):\n"
        "    live = put(self, milliwatts)\n"
        f"    if milliwatts != {before}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return live\n"
        "CardControl.set_power_limit = die\n"
        'sys.exit(main(["doctor"',
    )
    words = ("--prove-actuators", "0", "--yes")
    subprocess.run(
        [sys.executable, "-c", script, str(bench.root), *words],
        cwd=ROOT,
        env=bench.environment,
        timeout=60,
        check=False,
    )
    live = limit_of(nvml)
    record = bench.store.load(bench.here).record
    assert record is not None
    assert live < before
    assert record.original_milliwatts == before
    assert record.names(live)
    refused = bench.doctor("--yes")
    assert refused.returncode == 1
    assert "systemctl start medgemma-thermal@0 goes on from them" in refused.stderr
    assert limit_of(nvml) == live


def test_an_earlier_record_is_there_again_afterwards(bench: Bench, nvml: Caller) -> None:
    earlier = Record(
        uuid=bench.uuid, boot_id=boot_id(), sequence=7, original_milliwatts=limit_of(nvml)
    )
    assert bench.store.save(earlier) == ""
    assert bench.proof()[0] == 0
    later = bench.store.load(bench.here).record
    assert later is not None
    assert later.sequence > 7
    assert later.model_copy(update={"sequence": 7}) == earlier
