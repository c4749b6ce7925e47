# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import os
from pathlib import Path

import pytest
from dbus_next.message import Message

from gpuwarden import names
from gpuwarden.cli import busctl
from gpuwarden.cli.main import main
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import GuardData, PlanData, PlannedWorker
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.integration.cli.conftest import Answer, service_answering
from tests.machines import card
from tests.unit.cli.samples import gateway, gpu, guard, happened, orphan, worker


def answering(text: str) -> Answer:
    def answer(message: Message) -> Message | None:
        assert (message.path, message.interface, message.member, message.body) == (
            "/org/gpuwarden1",
            "org.gpuwarden1.Manager",
            "GetStatus",
            [],
        )
        return Message.new_method_return(message, "s", [text])

    return answer


async def run(*words: str) -> int:
    return await asyncio.to_thread(main, words)


@pytest.fixture(autouse=True)
def state_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the guard would leave its last state; nothing is there yet, of nobody."""
    (tmp_path / "thermal").mkdir()
    monkeypatch.setattr(names, "RUN_DIRECTORY", tmp_path)
    monkeypatch.setattr(names, "PLAN_FILE", tmp_path / "plan.json")
    monkeypatch.setattr(names, "GATEWAY_STATE_FILE", tmp_path / "gateway.json")
    file = tmp_path / "state.json"
    monkeypatch.setattr(names, "GUARD_STATE_FILE", file)
    return file


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(
    ("command", "data", "code"),
    [
        ("status", guard(), 0),
        ("status", guard(state=ServiceState.STARTING), 1),
        ("status", guard(state=ServiceState.DEGRADED), 1),
        ("gpus", guard(), 0),
        ("gpus", guard(gpus=[gpu(0), gpu(1, state=ThermalState.LOST)]), 1),
        ("workers", guard(workers=[worker(0, state=WorkerState.STOPPED)]), 0),
        ("workers", guard(workers=[worker(0), worker(1, state=WorkerState.GHOST)]), 1),
    ],
)
async def test_the_exit_code_tells_how_the_service_is(
    command: str, data: GuardData, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with service_answering(answering(data.model_dump_json())):
        assert await run(command) == code
        text = capsys.readouterr()
        assert text.err == ""
        assert text.out.isascii()
        assert await run(command, "--json") == code
    document = json.loads(capsys.readouterr().out)
    whole = data.model_dump(mode="json")
    assert document == (whole if command == "status" else whole[command])


@pytest.mark.usefixtures("bus")
async def test_without_the_service_its_last_state_is_shown_and_said_to_be_old(
    state_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = guard(state=ServiceState.DEGRADED, reasons=["no cards"])
    SnapshotWriter(state_file, "guard", valid_milliseconds=0).publish(data)
    assert await run("status") == 3
    text = capsys.readouterr().out
    assert text.startswith("gpuwarden 0.1.0 is NOT RUNNING\n")
    assert "because: medgemma-guard.service is not running (systemctl start" in text
    assert "because: no cards" in text
    assert "Workers (LAST KNOWN, written 0 s ago)" in text
    assert "gpu 0: its thermal guard says nothing (systemctl status medgemma-thermal@0" in text
    assert "systemctl status medgemma-guard.service" in text
    for command in ("workers", "gpus", "orphans"):
        assert await run(command) == 3
        assert "LAST KNOWN state, written 0 s ago" in capsys.readouterr().err


@pytest.mark.usefixtures("bus")
async def test_without_the_service_the_json_has_the_same_schema_and_says_so(
    state_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SnapshotWriter(state_file, "guard", valid_milliseconds=0).publish(guard())
    assert await run("status", "--json") == 3
    data = GuardData.model_validate_json(capsys.readouterr().out)
    assert data.state is ServiceState.DEGRADED
    assert data.reasons[0].startswith("medgemma-guard.service is not running")
    assert data.gateway is None


@pytest.mark.usefixtures("bus")
async def test_without_the_service_its_parts_speak_for_themselves(
    state_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SnapshotWriter(state_file, "guard", valid_milliseconds=0).publish(guard())
    hot = gpu(0, state=ThermalState.ALERT, temperature_celsius=84.0)
    SnapshotWriter(names.thermal_snapshot_file(0), "thermal", 60_000).publish(hot)
    SnapshotWriter(names.thermal_snapshot_file(1), "thermal", 0).publish(gpu(1))
    SnapshotWriter(names.GATEWAY_STATE_FILE, "gateway", 60_000).publish(gateway(queue_depth=77))
    assert await run("status") == 3
    text = capsys.readouterr().out
    assert "Cards (by their thermal guards, 0 s ago)" in text
    rows = [line.split() for line in text.splitlines()]
    assert [row[4] for row in rows if row[:2] == ["0", "alert"]] == ["84"]
    assert [row[4] for row in rows if row[:2] == ["1", "blind"]] == ["-"]
    assert "LAST KNOWN, written 0 s ago: normal, 41 C" in text
    assert "Requests (by the gateway, 0 s ago): 77 of 100 waiting" in text


SYSTEMCTL = """#!/bin/sh
cat <<END
ActiveState=active
SubState=running
MainPID={pid}
NRestarts=5
ExecMainStartTimestampMonotonic=2
ActiveEnterTimestampMonotonic=1000000

ActiveState=failed
Result=oom-kill
InactiveEnterTimestampMonotonic=1000000
END
"""


@pytest.mark.usefixtures("bus")
async def test_without_the_service_the_workers_are_as_systemd_says(
    state_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL.format(pid=os.getpid()))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    SnapshotWriter(names.PLAN_FILE, "placement", 0).publish(two_workers())
    former = guard(orphans=[orphan(812)], events=[happened(9, "told before")])
    SnapshotWriter(state_file, "guard", valid_milliseconds=0).publish(former)
    assert await run("status") == 3
    text = capsys.readouterr().out
    assert "Workers (by systemd, now): 1 of 2 ready" in text
    first, second = (
        line.split() for line in text.splitlines() if line.split()[1:2] in (["ready"], ["failed"])
    )
    assert (first[0], first[1], first[-1]) == ("0", "ready", "5")
    assert (second[0], second[1]) == ("1", "failed")
    assert "worker 1: killed by the kernel at its memory limit" in text
    assert "Orphans (LAST KNOWN, written 0 s ago): 1" in text
    assert "told before" in text
    assert "gpuwarden workers start" not in text  # nobody is there to do it


def two_workers() -> PlanData:
    cards = [card(n, n) for n in (0, 1)]
    workers = [
        PlannedWorker(
            number=n,
            gpu_index=n,
            gpu_uuid=cards[n].uuid,
            numa_node=n,
            cpus=str(n),
            memory_max_bytes=1,
        )
        for n in (0, 1)
    ]
    return PlanData(
        driver_version="1", simulated=True, cards=cards, workers=workers, housekeeping_cpus="0"
    )


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize("content", [None, "torn {"])
@pytest.mark.parametrize("command", ["status", "gpus", "workers"])
def test_without_the_service_and_a_last_state_both_are_said_to_be_missing(
    command: str, content: str | None, state_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        state_file.write_text(content)
    assert main([command]) == 3
    text = capsys.readouterr()
    assert text.out == ""
    assert "medgemma-guard.service is not running" in text.err
    assert f"nor is there a last state: {state_file}" in text.err


async def test_without_a_bus_the_last_state_is_shown(
    state_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    SnapshotWriter(state_file, "guard").publish(guard())
    assert await run("status") == 3
    text = capsys.readouterr().out
    assert text.startswith("gpuwarden 0.1.0 is RUNNING\n  no system bus (No such file")
    assert "Below is its state, written 0 s ago" in text


@pytest.mark.parametrize("bus", ["deny"], indirect=True)
async def test_who_may_not_ask_learns_which_group_may(
    bus: str, state_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USER", "alice")
    SnapshotWriter(state_file, "guard").publish(guard())
    async with service_answering(answering(guard().model_dump_json())):
        assert await run("status") == 3
    text = capsys.readouterr()
    assert text.out == ""
    assert "root and members of the group gpuwarden may ask" in text.err
    assert "adduser alice gpuwarden" in text.err


@pytest.mark.usefixtures("bus")
async def test_a_service_that_does_not_answer_in_time_is_not_waited_for(
    state_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(busctl, "TIMEOUT_SECONDS", 1)
    async with service_answering(lambda message: None):
        assert await run("status") == 3
        assert "no answer from medgemma-guard.service within 1 s" in capsys.readouterr().err
        SnapshotWriter(state_file, "guard").publish(guard())
        assert await run("status") == 3
    assert "no answer from medgemma-guard.service within 1 s" in capsys.readouterr().out


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize("text", ["{}", "not JSON", '{"version": "9", "colour": "red"}'])
async def test_an_answer_of_another_version_is_said_to_be_one(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with service_answering(answering(text)):
        assert await run("status") == 1
    error = capsys.readouterr().err
    assert "not this command's version of a status" in error
    assert "systemctl restart medgemma-guard.service" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("bus")
async def test_an_error_of_the_service_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(message: Message) -> Message:
        return Message.new_error(message, "org.gpuwarden1.Error.Failed", "the plan is gone")

    async with service_answering(fail):
        assert await run("status") == 1
    assert "the service could not answer: the plan is gone" in capsys.readouterr().err


async def test_a_host_without_busctl_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await run("status") == 3
    assert "apt install systemd" in capsys.readouterr().err


@pytest.mark.usefixtures("bus")
async def test_a_configuration_that_is_right_again_asks_for_a_reload_and_no_more_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpuwarden.toml"
    monkeypatch.setattr(names, "CONFIG_FILE", file)
    monkeypatch.setattr(names, "CONFIG_DIRECTORY", tmp_path / "conf.d")
    reason = f"the former configuration is in use: {file}:1: x"
    data = guard(state=ServiceState.DEGRADED, reasons=[reason])
    async with service_answering(answering(data.model_dump_json())):
        file.write_text("colour = 1")
        assert await run("status") == 1
        assert "  gpuwarden config check" in capsys.readouterr().out
        file.write_text("[log]")
        assert await run("status") == 1
    text = capsys.readouterr().out
    assert "config check" not in text
    assert "  gpuwarden reload" in text
