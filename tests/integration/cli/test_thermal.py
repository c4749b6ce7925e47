# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbus_next.message import Message

from gpuwarden import names
from gpuwarden.cli.main import main
from gpuwarden.control.requests import HISTORY_ROWS_LIMIT, ThermalEvent, ThermalStatusAnswer
from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState
from tests.integration.cli.conftest import service_answering
from tests.integration.cli.thermal_guard import ThermalGuard, guarding, publish, rows
from tests.unit.cli.samples import gpu, guard, since

NOBODY = 65534
EVENT = ThermalEvent(unix_microseconds=since(60), event="thermal-state", message="it got hot")


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/run/gpuwarden of a node on which nothing runs yet, and no bus."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(names, "RUN_DIRECTORY", folder)
    monkeypatch.setattr(names, "PLAN_FILE", folder / "plan.json")
    monkeypatch.setattr(names, "GUARD_STATE_FILE", folder / "state.json")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    return folder


def thermal_guard(seconds: int = 1000, **changes: Any) -> ThermalGuard:
    status = ThermalStatusAnswer(
        data=gpu(0, **changes),
        policy="regulated",
        memory_alert_celsius=88,
        memory_critical_celsius=95,
        events=[EVENT],
    )
    return ThermalGuard(status, rows(seconds))


async def run(*words: str | Path) -> int:
    return await asyncio.to_thread(main, ["thermal", *map(str, words)])


def bus_guard(
    *cards: ThermalData, refuse: tuple[str, str] | None = None
) -> tuple[Callable[[Message], Message], list[tuple[Any, ...]]]:
    """Answers as the guard does on the bus, and what it was ordered."""
    orders: list[tuple[Any, ...]] = []

    def answer(message: Message) -> Message:
        if message.member == "GetStatus":
            text = guard(gpus=list(cards)).model_dump_json()
            return Message.new_method_return(message, "s", [text])
        if message.member == "GetHistory":
            assert message.body == [3600]
            told = [
                [row.unix_microseconds, row.celsius, math.nan, 0 if n == 0 else 350, row.state]
                for n, row in enumerate(rows(30))
            ]
            return Message.new_method_return(message, "a(tddus)", [told])
        orders.append((message.path, message.member, *message.body))
        if refuse:
            return Message.new_error(message, *refuse)
        return Message.new_method_return(message)

    return answer, orders


async def test_a_thermal_guard_is_asked_first_and_knows_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watching = thermal_guard()
    publish(gpu(0, state=ThermalState.LOST))
    async with guarding(watching):
        assert await run() == 0
        text = capsys.readouterr()
        assert text.err == ""
        for part in ("is NORMAL", "alert 88, critical 95", "regulated", "it got hot", "last hour"):
            assert part in text.out
        assert "not known" not in text.out
        assert await run("0", "--json") == 0
    (card,) = json.loads(capsys.readouterr().out)["cards"]
    assert (card["source"], card["fresh"], card["unknown"]) == ("guard", True, [])
    assert card["events"] == [EVENT.model_dump(mode="json")]
    assert card["highest"] == {"celsius": 41, "memory_celsius": 45, "watts": 310}
    assert len(card["minutes"]) in (17, 18)
    pages = -(-1000 // HISTORY_ROWS_LIMIT)
    assert watching.asked.count("history") == 2 * pages


async def test_a_guard_without_a_history_still_tells_its_state(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watching = thermal_guard()
    handlers = watching.handlers()
    del handlers["history"]
    watching.handlers = lambda: handlers  # type: ignore[method-assign]
    publish(gpu(0))
    async with guarding(watching):
        assert await run("0") == 0
    text = capsys.readouterr().out
    assert "not known    history" in text
    assert "because      unknown request 'history'" in text


async def test_a_history_without_an_end_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    watching = thermal_guard()
    handlers = watching.handlers() | {"history": lambda request: {"rows": [], "more": True}}
    watching.handlers = lambda: handlers  # type: ignore[method-assign]
    publish(gpu(0))
    async with guarding(watching):
        assert await run("0") == 0
    assert "the history has no end" in capsys.readouterr().out


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(("state", "code"), [(ThermalState.NORMAL, 0), (ThermalState.CRITICAL, 1)])
async def test_who_may_not_ask_the_guard_asks_the_bus(
    state: ThermalState, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, _ = bus_guard(gpu(0, state=state), gpu(1))
    publish(gpu(0))
    async with guarding(thermal_guard(), uid=NOBODY), service_answering(answer):
        assert await run("0", "--json") == code
    (card,) = json.loads(capsys.readouterr().out)["cards"]
    assert (card["source"], card["data"]["state"]) == ("bus", state)
    assert "events" in card["unknown"]
    assert "history" not in card["unknown"]
    minute = card["minutes"][-1]
    assert (minute["celsius"], minute["watts"], minute["limit_watts"]) == (40, None, 350)
    assert card["highest"]["watts"] is None


@pytest.mark.usefixtures("bus")
async def test_the_bus_alone_names_the_cards_too(capsys: pytest.CaptureFixture[str]) -> None:
    answer, _ = bus_guard(gpu(0), gpu(1))
    async with service_answering(answer):
        assert await run("2") == 2
        assert "there is no GPU 2; there are: 0, 1" in capsys.readouterr().err
        assert await run() == 0
    text = capsys.readouterr().out
    assert "GPU 0 NVIDIA H200" in text
    assert "GPU 1 NVIDIA H200" in text
    assert "not known    policy, HBM thresholds, override, events, HBM history" in text


@pytest.mark.parametrize(("state", "code"), [(ThermalState.NORMAL, 0), (ThermalState.BLIND, 1)])
async def test_without_both_the_snapshot_tells_and_says_what_is_unknown(
    state: ThermalState, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(gpu(0, state=state))
    assert await run("0") == code
    text = capsys.readouterr()
    assert text.err == ""
    assert "not known    policy, HBM thresholds, override, events, history\n" in text.out
    assert "no system bus" in text.out
    assert await run("0", "--json") == code
    (card,) = json.loads(capsys.readouterr().out)["cards"]
    assert (card["source"], card["fresh"], card["minutes"]) == ("snapshot", True, None)


async def test_an_old_snapshot_is_shown_as_such_and_is_unreachable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(gpu(0), valid_milliseconds=0)
    assert await run() == 3
    text = capsys.readouterr()
    assert "is last known as NORMAL" in text.out
    assert "medgemma-thermal@0.service last said something 0 s ago" in text.err
    publish(gpu(1))
    assert await run() == 1


async def test_nothing_at_all_is_unreachable(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run() == 3
    text = capsys.readouterr()
    assert text.out == ""
    assert f"no card is known: {run_directory}/plan.json tells none, and no system bus" in text.err


async def test_an_unknown_card_is_bad_use_that_names_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(gpu(0))
    publish(gpu(3))
    for words in (["7"], ["override", "7", "alert", "60"], ["--plot", "/nowhere/a.svg", "7"]):
        assert await run(*words) == 2
        assert "there is no GPU 7; there are: 0, 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["x"],
        ["-1"],
        ["0", "1"],
        ["override"],
        ["override", "0", "normal", "60"],
        ["override", "0", "alert", "0"],
        ["override", "0", "alert", "86401"],
        ["override", "0", "alert", "1.5"],
        ["override", "0", "alert"],
        ["clear-override"],
        ["clear-override", "0", "1"],
        ["release", "0"],
        ["release", "0", "soon"],
        ["cool", "0"],
        ["--plot"],
    ],
)
def test_bad_use_is_told_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["thermal", *words])
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith(" (gpuwarden thermal --help)\n")


ORDERS = [
    (["override", "0", "alert", "600"], ("Override", "alert", 600)),
    (["override", "0", "critical", "86400"], ("Override", "critical", 86400)),
    (["clear-override", "0"], ("ClearOverride",)),
    (["release", "0", "120"], ("Release", 120)),
]


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(("words", "order"), ORDERS)
async def test_orders_go_over_the_bus(
    words: list[str], order: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, orders = bus_guard(gpu(0))
    publish(gpu(0))
    async with service_answering(answer):
        assert await run(*words) == 0
        assert "GPU 0 is" in capsys.readouterr().out
        assert await run(*words, "--json") == 0
    assert orders == [("/org/gpuwarden1/gpu/0", *order)] * 2
    document = json.loads(capsys.readouterr().out)
    assert (document["gpu"], document["action"], document["through"]) == (0, words[0], "bus")


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize("words", [words for words, _ in ORDERS])
async def test_a_refusal_is_passed_on(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refusal = ("org.gpuwarden1.Error.Busy", "worker 0 runs on GPU 0")
    answer, _ = bus_guard(gpu(0), refuse=refusal)
    watching = thermal_guard()
    publish(gpu(0))
    async with guarding(watching), service_answering(answer):
        assert await run(*words) == 1
    assert "worker 0 runs on GPU 0" in capsys.readouterr().err
    assert watching.orders == []  # a refusal is no reason to go round it


@pytest.mark.usefixtures("bus")
async def test_who_may_not_order_learns_what_is_asked_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    denial = ("org.freedesktop.DBus.Error.AccessDenied", "polkit says no")
    answer, _ = bus_guard(gpu(0), refuse=denial)
    watching = thermal_guard()
    publish(gpu(0))
    async with guarding(watching), service_answering(answer):
        assert await run("override", "0", "alert", "60") == 3
    assert "org.gpuwarden1.thermal-override" in capsys.readouterr().err
    assert watching.orders == []


async def test_without_a_bus_root_orders_overrides_of_the_guard_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    watching = thermal_guard()
    publish(gpu(0))
    async with guarding(watching):
        assert await run("override", "0", "alert", "60", "--json") == 0
        assert json.loads(capsys.readouterr().out)["through"] == "guard"
        assert await run("clear-override", "0") == 0
        assert "no system bus" in capsys.readouterr().err
        assert await run("release", "0", "60") == 3
    assert watching.orders == [
        {"request": "override", "state": "alert", "seconds": 60},
        {"request": "clear-override"},
    ]


async def test_without_a_bus_others_order_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    watching = thermal_guard()
    publish(gpu(0))
    async with guarding(watching):
        assert await run("override", "0", "alert", "60") == 3
    assert watching.orders == []
    assert "no system bus" in capsys.readouterr().err


async def test_root_without_bus_and_guard_is_told_of_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    publish(gpu(0))
    assert await run("clear-override", "0") == 3
    assert "medgemma-thermal@0.service does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["hour.svg", "hour.png"])
async def test_the_last_hour_is_drawn(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(gpu(0))
    file = tmp_path / name
    async with guarding(thermal_guard()):
        assert await run("--plot", file) == 0
        assert f"{file}: GPU 0, 1000 seconds of it" in capsys.readouterr().out
        assert await run("0", "--plot", file, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"gpu": 0, "file": str(file), "seconds": 1000}
    assert file.read_bytes()[:4] in (b"<?xm", b"\x89PNG")


async def test_a_drawing_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(gpu(0))
    assert await run("--plot", tmp_path / "a.svg") == 3
    assert "no history of GPU 0 to draw" in capsys.readouterr().err
    publish(gpu(1))
    assert await run("--plot", tmp_path / "a.svg") == 2
    assert "which of 0, 1?" in capsys.readouterr().err
    assert await run("--plot", tmp_path / "a.jpg", "0") == 2
    assert "must end in .png or .svg" in capsys.readouterr().err
    async with guarding(thermal_guard()):
        assert await run("--plot", tmp_path / "none" / "a.svg", "0") == 1
    assert "can't be written: No such file or directory" in capsys.readouterr().err
    assert await run("--plot", tmp_path / "a.svg", "release", "0", "60") == 2
    assert not (tmp_path / "a.svg").exists()
