import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.cli.advice import ADVICE_LIMIT, advice
from gpuwarden.cli.output import duration, table
from gpuwarden.cli.service import Known
from gpuwarden.cli.status import screen
from gpuwarden.control.states import GuardData, TuningData
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.unit.cli.samples import NOW_UNIX_SECONDS, gateway, gpu, guard, worker


def test_a_good_service_on_one_screen() -> None:
    assert screen(Known(guard()), NOW_UNIX_SECONDS) == [
        "gpuwarden 0.1.0 is RUNNING",
        "",
        "Workers: 2 of 2 ready",
        "  WORKER  STATE  GPU  CPUS  PRIORITY   PID  REQUESTS  FAILED  RESTARTS   FOR",
        "       0  ready    0     0  fifo:10   1000        12       0         0  90 s",
        "       1  ready    1     1  fifo:10   1001        12       0         0  90 s",
        "",
        "Cards",
        "  GPU  STATE   TEMP C  HBM C    WATTS  LOAD %   VRAM GiB  NUMA  FOR  NAME",
        "    0  normal      41     44  122/700      25  1.0/141.0     0  2 h  NVIDIA H200",
        "    1  normal      41     44  122/700      25  1.0/141.0     1  2 h  NVIDIA H200",
        "",
        "Requests: 3 of 100 waiting",
        "  15 answered, 0.12 s on average, 1 failed, 2 refused, 0 retried",
    ]


@pytest.mark.parametrize(
    ("tuning", "line"),
    [
        (
            TuningData(time_of_day="night", profile="gpuwarden-night", verified=True),
            "Host: gpuwarden-night in force (night), verified",
        ),
        (
            TuningData(time_of_day="day", untuned="tuned is not installed (apt install tuned)"),
            "Host: not tuned: tuned is not installed (apt install tuned)",
        ),
        (TuningData(fault="tuned refuses: no"), "Host: no profile in force; tuned refuses: no"),
        (
            TuningData(time_of_day="day", profile="balanced", note="it differs"),
            "Host: balanced in force (day); it differs",
        ),
    ],
)
def test_the_hosts_tuning_is_a_line_where_it_is_wanted(tuning: TuningData, line: str) -> None:
    lines = screen(Known(guard(tuning=tuning)), NOW_UNIX_SECONDS)
    assert lines[-2:] == ["", line]


def test_a_service_in_trouble_says_why_and_what_would_help() -> None:
    data = guard(
        state=ServiceState.DEGRADED,
        simulated=True,
        reasons=["worker 1 failed", "the configuration is bad, the old one is kept"],
        workers_ready=1,
        workers=[
            worker(0),
            worker(1, state=WorkerState.FAILED, main_pid=0, last_error="load(): x"),
        ],
        gpus=[
            gpu(0),
            gpu(1, state=ThermalState.BLIND, temperature_celsius=None, reason="no answer"),
        ],
        gateway=None,
    )
    lines = screen(Known(data), NOW_UNIX_SECONDS)
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert lines[0] == "gpuwarden 0.1.0 is DEGRADED with SIMULATED cards"
    assert lines[1:3] == [f"  because: {reason}" for reason in data.reasons]
    assert "  worker 1: load(): x" in lines
    assert "  gpu 1: no answer" in lines
    assert "the gateway has not published its state" in text
    for command in (
        "gpuwarden config check",
        "journalctl -u medgemma-worker@1.service -n 50",
        "journalctl -u medgemma-thermal@1.service -n 50",
        "systemctl status medgemma-gateway.socket medgemma-gateway.service",
    ):
        assert f"\n  {command}" in text


def test_nothing_a_service_says_can_paint_the_terminal() -> None:
    data = guard(
        reasons=["\x1b[2J\nfake"], workers=[worker(0, last_error="a\x1b]0;x\x07\nb", cpus="\x1b")]
    )
    assert all(line.isprintable() for line in screen(Known(data), NOW_UNIX_SECONDS))


@pytest.mark.parametrize(
    ("changes", "live", "commands"),
    [
        ({}, True, []),
        ({"state": ServiceState.STARTING, "gateway": None}, True, []),
        ({}, False, ["systemctl status medgemma-guard.service"]),
        (
            {"state": ServiceState.DEGRADED},
            True,
            ["journalctl -u medgemma-guard.service -n 50"],
        ),
        (
            {"workers": [worker(3, state=WorkerState.STOPPED)]},
            True,
            ["systemctl start medgemma-worker@3.service"],
        ),
        (
            {"gpus": [gpu(0, state=ThermalState.LOST), gpu(1, state=ThermalState.LOST)]},
            True,
            [
                "journalctl -u medgemma-thermal@0.service -n 50",
                "journalctl -k -g 'NVRM|Xid'",
                "journalctl -u medgemma-thermal@1.service -n 50",
            ],
        ),
        ({"gateway": gateway(paused=True)}, True, []),
    ],
)
def test_advice(changes: dict[str, object], live: bool, commands: list[str]) -> None:
    assert [command for command, _ in advice(guard(**changes), live=live)] == commands


def test_advice_is_short_however_much_is_wrong() -> None:
    data: GuardData = guard(workers=[worker(n, state=WorkerState.STUCK) for n in range(16)])
    assert len(advice(data, live=False)) == ADVICE_LIMIT


@pytest.mark.parametrize(
    ("terminal", "environment", "wanted"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colour_and_cut_lines_are_for_terminals_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], wanted: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    reason = "a reason " * 20
    lines = screen(Known(guard(state=ServiceState.DEGRADED, reasons=[reason])), NOW_UNIX_SECONDS)
    assert ("\x1b[31mDEGRADED\x1b[0m" in lines[0]) is wanted
    assert len(lines[1]) == (60 if terminal else len(f"  because: {reason}"))


cells = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(deadline=None)
@given(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=4))
def test_columns_of_a_table_begin_at_the_same_place_in_every_row(rows: list[list[str]]) -> None:
    marked = [[row[0], "|", row[1], "|", row[2]] for row in rows]
    lines = table(["A", "|", "B", "|", "C"], marked)
    assert len(lines) == len(rows) + 1
    assert all(line.isprintable() for line in lines)
    first = lines[0].index("|")
    assert {line[first] for line in lines} == {"|"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (2e6, "23 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
