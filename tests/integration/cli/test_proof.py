# SPDX-License-Identifier: Apache-2.0
"""The proof on simulated cards, with the driver's library in a process of its own."""

import json
import os
import pty
import subprocess
import time

import pytest

from tests.integration.cli.proof_bench import GPU, ROOT, Bench, limit_of, sm_lock, verdicts
from tests.integration.simulation import Caller

WITHOUT_ADMINISTRATION = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")


def test_a_card_that_takes_everything_is_proven_and_has_its_own_back(
    bench: Bench, nvml: Caller
) -> None:
    nvml("nvmlDeviceSetPowerManagementLimit", GPU, 250_000)
    code, protocol = bench.proof()
    assert code == 0
    assert protocol["outcomes"] == {"power-limit": "proven", "sm-clock-lock": "proven"}
    assert verdicts(protocol) == [
        ("power-limit", "read", "good"),
        ("power-limit", "write what is there", "good"),
        ("power-limit", "5 % less", "good"),
        ("power-limit", "put back", "good"),
        ("sm-clock-lock", "read", "good"),
        ("sm-clock-lock", "5 % below the highest", "good"),
        ("sm-clock-lock", "put back", "good"),
    ]
    less = protocol["steps"][2]
    assert (less["asked"], less["answered"], less["read_back"]) == ("237 W", "ok", "237 W")
    assert (protocol["simulated"], protocol["uuid"]) == (True, bench.uuid)
    assert (protocol["restored"], protocol["stopped"]) == (True, "")
    assert limit_of(nvml) == 250_000
    assert sm_lock(bench) is None
    assert bench.store.load(bench.here).record is None


def test_the_protocol_is_dated_and_left_in_a_file(bench: Bench) -> None:
    file = bench.root / "protocol.txt"
    finished = bench.doctor("--yes", "--output", str(file))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert file.read_text() == finished.stdout
    for part in (
        "Proof of what can be set on GPU 0",
        f"NVIDIA A100, {bench.uuid}, 0000:41:00.0",
        ", SIMULATED",
        f"date    {time.strftime('%Y-')}",
        "STEP",
        "Power limit: proven; SM clock lock: proven",
        "everything is as it was found",
    ):
        assert part in finished.stdout
    nowhere = bench.doctor("--yes", "--output", "/nowhere/at/all")
    assert nowhere.returncode == 1
    assert "/nowhere/at/all can't be written" in nowhere.stderr


def test_a_loaded_card_shows_that_it_heeds_the_lock(bench: Bench) -> None:
    bench.node.do("load", "--gpu", "0", "--fraction", "1")
    _, protocol = bench.proof()
    lock = protocol["steps"][5]
    assert int(lock["read_back"].removesuffix(" MHz")) <= int(lock["asked"].removesuffix(" MHz"))


def test_a_card_at_its_minimum_has_no_room(bench: Bench, nvml: Caller) -> None:
    least, _ = nvml("nvmlDeviceGetPowerManagementLimitConstraints", GPU)
    nvml("nvmlDeviceSetPowerManagementLimit", GPU, least)
    code, protocol = bench.proof()
    assert code == 0
    assert protocol["outcomes"]["power-limit"] == "not tried"
    assert "is the card's minimum" in protocol["steps"][2]["note"]
    assert limit_of(nvml) == least


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        ("no-power-limit", {"power-limit": "not proven", "sm-clock-lock": "proven"}),
        ("no-permission", {"power-limit": "not proven", "sm-clock-lock": "not proven"}),
    ],
)
def test_a_card_that_refuses_is_not_proven(
    fault: str, outcomes: dict[str, str], bench: Bench, nvml: Caller
) -> None:
    before = limit_of(nvml)
    bench.node.do("fault", "--gpu", "0", fault)
    code, protocol = bench.proof()
    assert code == 1
    assert protocol["outcomes"] == outcomes
    assert "NVML" in protocol["steps"][1]["answered"]
    assert limit_of(nvml) == before


def test_a_baseline_comes_back_in_place_of_no_lock(bench: Bench) -> None:
    (bench.root / "gpuwarden.toml").write_text("[thermal]\nsm_clock_baseline_mhz = 1200\n")
    code, protocol = bench.proof()
    assert code == 0
    assert protocol["steps"][-1]["asked"] == "1200 MHz"
    assert sm_lock(bench) is not None


def test_without_a_terminal_it_takes_a_yes(bench: Bench) -> None:
    finished = bench.doctor()
    assert finished.returncode == 2
    assert "on a terminal, or give --yes" in finished.stderr


@pytest.mark.parametrize(
    ("answers", "code", "clock"),
    [
        ("n\n", 1, None),
        ("\n", 1, None),
        ("y\nn\n", 0, "not tried"),
        ("yes\ny\n", 0, "proven"),
    ],
)
def test_it_asks_on_a_terminal(
    answers: str, code: int, clock: str | None, bench: Bench, nvml: Caller
) -> None:
    before = limit_of(nvml)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answers.encode())
        finished = bench.doctor("--json", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert finished.returncode == code
    assert "Go on? [y/N]" in finished.stderr
    if clock is None:
        assert finished.stdout == ""
        assert "not wanted: nothing was changed" in finished.stderr
    else:
        assert "nvidia-smi -lgc" in finished.stderr
        assert json.loads(finished.stdout)["outcomes"]["sm-clock-lock"] == clock
    assert limit_of(nvml) == before


def test_without_administration_nothing_is_tried(bench: Bench) -> None:
    finished = bench.doctor("--yes", prefix=WITHOUT_ADMINISTRATION)
    assert finished.returncode == 1
    assert "root with CAP_SYS_ADMIN" in finished.stderr


def test_a_card_that_is_not_there_is_told(bench: Bench) -> None:
    run = bench.command("--prove-actuators", "7", "--yes")
    finished = subprocess.run(
        run, capture_output=True, text=True, check=False, cwd=ROOT, env=bench.environment
    )
    assert finished.returncode == 2
    assert "there is no GPU 7; there are: 0, 1" in finished.stderr
    lost = subprocess.run(
        bench.command("--prove-actuators", "1", "--yes"),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=bench.environment,
    )
    assert lost.returncode == 1
    assert "is lost" in lost.stderr


def test_a_node_without_plan_or_driver_is_unreachable(bench: Bench) -> None:
    bench.environment["GPUWARDEN_NVML_LIBRARY"] = "/nowhere/libnvidia-ml.so.1"
    finished = bench.doctor("--yes")
    assert finished.returncode == 3
    assert "no NVIDIA driver" in finished.stderr
    (bench.root / "plan.json").unlink()
    finished = bench.doctor("--yes")
    assert finished.returncode == 3
    assert "systemctl start medgemma-numa.service" in finished.stderr


@pytest.mark.parametrize("words", [["--prove-actuators"], ["--prove-actuators", "x"]])
def test_bad_use_is_told_in_one_line(words: list[str], bench: Bench) -> None:
    finished = subprocess.run(
        bench.command(*words), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 2
    assert finished.stderr.endswith(" (gpuwarden doctor --help)\n")
