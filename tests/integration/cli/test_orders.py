# SPDX-License-Identifier: Apache-2.0
"""Orders to workers and the end of orphans, given to a service that answers as told."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dbus_next.message import Message

from gpuwarden import names
from gpuwarden.cli import worker_orders
from gpuwarden.cli.main import main
from gpuwarden.control.states import GuardData
from gpuwarden.values import WorkerState
from tests.integration.cli.conftest import service_answering
from tests.unit.cli.samples import guard, orphan, worker

FREED = 3 << 20


@dataclass
class Service:
    """Takes orders; each status that is asked for is the next one of ``states``, then the last."""

    states: list[GuardData] = field(default_factory=lambda: [guard()])
    refusal: str = ""
    orders: list[tuple[str, list[object]]] = field(default_factory=list)

    def __call__(self, message: Message) -> Message:
        assert message.interface == "org.gpuwarden1.Manager"
        if message.member == "GetStatus":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return Message.new_method_return(message, "s", [state.model_dump_json()])
        self.orders.append((str(message.member), message.body))
        if self.refusal:
            return Message.new_error(message, "org.gpuwarden1.Error.Busy", self.refusal)
        if message.member == "ReapOrphan":
            return Message.new_method_return(message, "t", [FREED])
        return Message.new_method_return(message)


async def run(service: Callable[[Message], Message], *words: str) -> int:
    async with service_answering(service):
        return await asyncio.to_thread(main, words)


@pytest.fixture(autouse=True)
def at_once(bus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_orders, "LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(names, "GUARD_STATE_FILE", tmp_path / "state.json")


@pytest.mark.parametrize(
    ("action", "method", "end"),
    [
        ("start", "StartWorker", worker(1)),
        ("stop", "StopWorker", worker(1, state=WorkerState.STOPPED, main_pid=0)),
        ("restart", "RestartWorker", worker(1, main_pid=7)),
    ],
)
async def test_an_order_is_waited_for_and_its_progress_told(
    action: str, method: str, end: object, capsys: pytest.CaptureFixture[str]
) -> None:
    under_way = guard(workers=[worker(0), worker(1, operation="under way")])
    done = guard(workers=[worker(0), end])
    service = Service([guard(), under_way, done])
    assert await run(service, "workers", action, "1") == 0
    assert service.orders == [(method, [1])]
    text = capsys.readouterr()
    assert "worker 1: under way\n" in text.err
    assert text.out.startswith("worker 1 is ")


async def test_a_rolling_restart_concerns_all(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service([guard(), guard(workers=[worker(0, main_pid=7), worker(1, main_pid=8)])])
    assert await run(service, "workers", "rolling-restart", "--json") == 0
    assert service.orders == [("RollingRestart", [])]
    text = capsys.readouterr()
    assert text.err == ""
    assert json.loads(text.out) == {
        "action": "rolling-restart",
        "worker": None,
        "waited": True,
        "failed": "",
        "workers": [
            {"number": 0, "state": "ready", "main_pid": 7},
            {"number": 1, "state": "ready", "main_pid": 8},
        ],
    }


async def test_no_wait_comes_back_once_it_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service()
    assert await run(service, "workers", "drain", "0", "--no-wait") == 0
    assert service.orders == [("DrainWorker", [0])]
    assert capsys.readouterr().out.startswith("drain of worker 0: accepted")


async def test_a_worker_that_fails_is_exit_1_with_its_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = guard(workers=[worker(0, state=WorkerState.FAILED, main_pid=0, last_error="no room")])
    assert await run(Service([guard(), failed]), "workers", "restart", "0") == 1
    assert "worker 0 failed: no room" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("workers", "stop", "9"), ("reap", "9")])
async def test_a_refusal_is_told_in_the_services_words(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(refusal="something is under way with it")
    assert await run(service, *words) == 1
    assert capsys.readouterr().err == "gpuwarden: not done: something is under way with it\n"


async def test_who_may_not_learns_who_may(capsys: pytest.CaptureFixture[str]) -> None:
    def deny(message: Message) -> Message:
        if message.member == "GetStatus":
            return Message.new_method_return(message, "s", [guard().model_dump_json()])
        return Message.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "no")

    for words, action in ((("reap", "9"), "reap"), (("workers", "stop", "0"), "manage-workers")):
        assert await run(deny, *words) == 3
        error = capsys.readouterr().err
        assert "root, or members of the group gpuwarden whom polkit lets" in error
        assert f"(org.gpuwarden1.{action})" in error


@pytest.mark.parametrize(
    "words",
    [
        ("workers", "stop"),
        ("workers", "stop", "-1"),
        ("workers", "stop", "0; reboot"),
        ("workers", "stop", "4294967296"),
        ("workers", "start", "0", "1"),
        ("workers", "rolling-restart", "0"),
        ("workers", "dance"),
        ("reap",),
        ("reap", "0"),
        ("reap", "all"),
        ("reap", "٣"),
    ],
)
def test_bad_use_is_exit_2_and_nothing_is_asked(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2


async def test_a_reaped_process_has_freed_so_much(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service()
    assert await run(service, "reap", "812") == 0
    assert service.orders == [("ReapOrphan", [812])]
    assert capsys.readouterr().out == "PID 812 is gone: freed 3 MiB\n"
    assert await run(service, "reap", "812", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"pid": 812, "freed_bytes": FREED}


def test_without_the_service_nothing_can_be_ordered(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("reap", "812"), ("workers", "stop", "0")):
        assert main(words) == 3
        assert "medgemma-guard.service is not running" in capsys.readouterr().err


async def test_orphans_are_listed_and_unknown_is_not_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = guard(
        orphans=[orphan(812), orphan(900, orphan_class="desktop", command="Xorg")],
        scans={0: "", 1: "the driver does not answer"},
    )
    assert await run(Service([data]), "orphans") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "PID",
        "GPU",
        "CLASS",
        "COMMAND",
        "VRAM",
        "MiB",
        "FOR",
        "SCANS",
        "UNIT",
    ]
    assert lines[1].split()[:5] == ["812", "0", "foreign", "python3", "3"]
    assert "  foreign: somebody's: gpuwarden reap ends it" in lines
    assert lines[-1] == "  gpu 1: its holders are unknown: the driver does not answer"
    assert await run(Service([data]), "orphans", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert [each["pid"] for each in document["orphans"]] == [812, 900]
    assert document["unknown"] == {"1": "the driver does not answer"}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (guard(), 0),
        (guard(orphans=[orphan(orphan_class="desktop")]), 0),
        (guard(orphans=[orphan(orphan_class="ours-dead")]), 1),
        (guard(scans={0: "blind"}), 1),
    ],
)
async def test_the_exit_code_tells_whether_somebody_holds_what_he_should_not(
    data: GuardData, code: int
) -> None:
    assert await run(Service([data]), "orphans") == code
