# SPDX-License-Identifier: Apache-2.0
"""What the configuration must fit on this node: its cards and its front door's address."""

import os
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.cli.main import main
from gpuwarden.config import ConfigurationError, load_configuration
from gpuwarden.config.urls import Door
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import PlanData
from gpuwarden.guard import node
from gpuwarden.guard.node import front_door, node_rules
from tests.machines import card, machine, write_sysfs

HERE = "GPU-8f3a2b1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c"
ELSEWHERE = "GPU-00000000-0d4e-4f5a-9b6c-7d8e9f0a1b2c"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(names, "PLAN_FILE", tmp_path / "plan.json")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "gpuwarden.toml"


def plan(cards: int = 1) -> None:
    data = PlanData(
        driver_version="580",
        simulated=False,
        cards=[card(n).model_copy(update={"uuid": HERE}) for n in range(cards)],
        workers=[],
        housekeeping_cpus="",
    )
    SnapshotWriter(names.PLAN_FILE, "placement").publish(data)


def systemd_says(folder: Path, listen: str) -> None:
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\ncat <<END\n{listen}\nEND\n")
    program.chmod(0o755)


def check(file: Path, text: str) -> str:
    """What is wrong with a configuration on this node."""
    file.write_text(text, encoding="utf-8")
    try:
        load_configuration(file, None, node_rules())
    except ConfigurationError as error:
        return str(error)
    return ""


def test_a_card_that_is_not_here_is_a_problem_once_the_cards_are_known(file: Path) -> None:
    text = f"[thermal.cards.{ELSEWHERE}]\nalert_celsius = 70\n"
    assert check(file, text) == ""
    plan()
    assert check(file, text) == (
        f"{file}:1: thermal.cards.{ELSEWHERE}: found no such card: {ELSEWHERE}; "
        f"allowed: this node has: {HERE} (GPU 0)"
    )
    assert check(file, text.replace(ELSEWHERE, HERE)) == ""


def test_a_plan_without_cards_or_of_another_boot_knows_none(file: Path) -> None:
    text = f"[thermal.cards.{ELSEWHERE}]\nalert_celsius = 70\n"
    plan(cards=0)
    assert check(file, text) == ""
    plan()
    snapshot = names.PLAN_FILE.read_text()
    now = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    names.PLAN_FILE.write_text(snapshot.replace(now, "another"))
    assert check(file, text) == ""


def test_the_front_door_is_where_systemd_says(file: Path) -> None:
    systemd_says(file.parent, "10.0.0.7:8080 (Stream)\n[::]:7900 (Stream)\n/run/a.sock (Stream)")
    assert front_door() == [Door("10.0.0.7", 8080), Door("::", 7900)]
    text = "[[thermal.hooks]]\non = ['alert']\npost = 'http://localhost:{}/'\n"
    assert f"{file}:3: thermal.hooks[0].post" in check(file, text.format(7900))
    assert check(file, text.format(7901)) == ""


def test_housekeeping_cpus_are_of_this_node_and_leave_some_to_workers(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sysfs(file.parent / "sys", machine(2, 2, 1), {})
    monkeypatch.setattr(node, "SYSFS", file.parent / "sys")
    text = "[placement]\nhousekeeping_cpus = '{}'\n"
    assert check(file, text.format("0-1")) == check(file, text.format("")) == ""
    assert check(file, text.format("0,7-9")) == (
        f'{file}:2: placement.housekeeping_cpus: found "0,7-9", and this node has no CPU 7-9; '
        "allowed: CPUs of this node: 0-3"
    )
    assert "which is every CPU of this node" in check(file, text.format("0-3"))


def test_a_housekeeping_cpu_that_is_off_now_is_no_mistake_but_one_must_be_on(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sysfs(file.parent / "sys", machine(1, 4, 1), {})
    (file.parent / "sys/devices/system/cpu/online").write_text("1-3\n")
    monkeypatch.setattr(node, "SYSFS", file.parent / "sys")
    text = "[placement]\nhousekeeping_cpus = '{}'\n"
    assert check(file, text.format("0-1")) == ""
    assert "of which no CPU is online" in check(file, text.format("0"))
    assert "which is every CPU" in check(file, text.format("0-3"))


def test_a_machine_that_does_not_say_its_cpus_forbids_none(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "SYSFS", file.parent / "nowhere")
    assert check(file, "[placement]\nhousekeeping_cpus = '4095'\n") == ""


def test_a_systemd_that_does_not_answer_forbids_nothing(file: Path) -> None:
    systemd_says(file.parent, "")
    assert front_door() == []
    (file.parent / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    assert check(file, "[[thermal.hooks]]\non = ['alert']\npost = 'http://localhost:7900/'\n") == ""


def test_a_profile_is_looked_for_where_tuned_is_installed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[tuning]\nenabled = true\nday_profile = 'nonesuch'\n"
    monkeypatch.setattr(node, "tuned_is_installed", lambda: False)
    assert check(file, text) == ""
    monkeypatch.setattr(node, "tuned_is_installed", lambda: True)
    monkeypatch.setattr(node, "known_profiles", lambda: {"balanced", "gpuwarden-night"})
    assert f'{file}:3: tuning.day_profile: found "nonesuch"' in check(file, text)


def test_config_check_knows_this_nodes_cards(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    file.write_text(f"[thermal.cards.{ELSEWHERE}]\npolicy = 'stepped'\n")
    assert main(["config", "check", str(file)]) == 1
    assert f"{file}:1: " in (printed := capsys.readouterr().out)
    assert f"this node has: {HERE}" in printed
