# SPDX-License-Identifier: Apache-2.0
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.cli.known import Known, Origins
from gpuwarden.cli.output import duration, table
from gpuwarden.cli.status_screen import SCREEN_LINES, screen
from gpuwarden.control.host import TuningData
from gpuwarden.control.states import GatewayJobs, ServerFigures
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.unit.cli.samples import (
    NOW_UNIX_SECONDS,
    gateway,
    gpu,
    guard,
    happened,
    orphan,
    since,
    worker,
)


def test_a_good_service_on_one_screen() -> None:
    data = guard(
        workers=[
            worker(0, process_depth=2, vram_reserved_bytes=2**30, vram_allocated_bytes=2**29),
            worker(1),
        ],
        events=[happened(60, "worker 1: loading -> ready")],
    )
    lines = screen(Known(data), NOW_UNIX_SECONDS)
    event = lines.pop()
    assert lines == [
        "gpuwarden 0.1.0 is RUNNING",
        "",
        "Workers: 2 of 2 ready",
        "  WORKER  STATE   FOR  GPU   PID   PROCESSES  REQUESTS  FAILED  RESTARTS",
        "       0  ready  90 s    0  1000  3 (2 deep)        12       0         0",
        "       1  ready  90 s    1  1001           3        12       0         0",
        "",
        "Cards",
        "  GPU  STATE   FOR  TEMP C  HBM C    WATTS   VRAM GiB  FRAG  NAME",
        "    0  normal  2 h      41     44  122/700  1.0/141.0   50%  H200",
        "    1  normal  2 h      41     44  122/700  1.0/141.0     -  H200",
        "",
        "Requests: 3 of 100 waiting",
        "  15 answered, 0.12 s on average, 1 failed, 2 refused, 0 retried",
        "Orphans: none",
        "",
        "Last events",
    ]
    assert event.endswith("  worker 1: loading -> ready")


def test_two_cards_and_two_workers_fit_a_terminal_of_80_columns_and_24_lines() -> None:
    busy = {"process_depth": 3, "requests": 1234567, "failures": 123, "main_pid": 4194303}
    data = guard(
        workers=[worker(n, state=WorkerState.BUSY, since=since(7000), **busy) for n in (0, 1)],
        gpus=[gpu(n, name="NVIDIA H100 80GB HBM3", vram_used_bytes=10**11) for n in (0, 1)],
        gateway=gateway(completed=1234567, failed=1234, rejected=12345, retried=1234),
        tuning=TuningData(time_of_day="night", profile="gpuwarden-night", verified=True),
        simulated=True,
        events=[happened(3600 - n, f"worker {n % 2}: loading -> ready") for n in range(20)],
    )
    lines = screen(Known(data), NOW_UNIX_SECONDS)
    assert len(lines) < SCREEN_LINES  # the prompt has the last one
    assert [line for line in lines if len(line) > 80] == []
    assert sum("loading -> ready" in line for line in lines) >= 3


def test_what_was_shown_last_of_the_events_is_the_newest() -> None:
    data = guard(events=[happened(20 - n, f"event {n}") for n in range(20)])
    assert screen(Known(data), NOW_UNIX_SECONDS)[-1].endswith("  event 19")
    assert len(screen(Known(data), NOW_UNIX_SECONDS, height=60)) == 17 + 20


def test_an_event_of_another_day_has_its_date() -> None:
    lines = screen(Known(guard(events=[happened(3 * 86400, "x")])), NOW_UNIX_SECONDS)
    assert lines[-1].startswith("  2027-01-12 ")


def test_what_is_done_with_a_worker_and_how_its_former_life_ended_is_said() -> None:
    data = guard(
        workers=[
            worker(0, operation="restarting: ghost", last_error="x", last_exit="killed at 12:00"),
            worker(1, outdated=True, reason="runs by former settings until it is restarted"),
        ]
    )
    lines = screen(Known(data), NOW_UNIX_SECONDS)
    assert "  worker 0: restarting: ghost; x; before that: killed at 12:00" in lines
    assert "  worker 1: runs by former settings until it is restarted" in lines


def test_an_end_that_is_the_trouble_itself_is_told_once() -> None:
    ended = "2027-01-15T07:59:00: killed by SIGKILL; 3 processes ended"
    data = guard(workers=[worker(0, last_error="killed by SIGKILL", last_exit=ended)])
    lines = screen(Known(data), NOW_UNIX_SECONDS)
    assert f"  worker 0: its last end: {ended}" in lines


def test_what_the_server_of_a_worker_says_of_itself_is_shown() -> None:
    told = ServerFigures(running=3, waiting=1, kv_cache_usage=0.42)
    lines = screen(Known(guard(workers=[worker(0, server=told)])), NOW_UNIX_SECONDS)
    text = "  worker 0: its server: 3 running, 1 waiting, 42% of its KV cache in use"
    assert text in lines
    silent = screen(Known(guard(workers=[worker(0, server=ServerFigures())])), NOW_UNIX_SECONDS)
    assert not [line for line in silent if "its server" in line]


def test_a_pause_is_said_with_its_reason_and_its_end() -> None:
    paused = gateway(paused=True, paused_until=since(-300))
    text = "\n".join(screen(Known(guard(gateway=paused)), NOW_UNIX_SECONDS))
    assert "Requests: 3 of 100 waiting, PAUSED by an operator for another 5 min" in text
    hot = "\n".join(screen(Known(guard(gateway=gateway(paused=True))), NOW_UNIX_SECONDS))
    assert "Requests: 3 of 100 waiting, PAUSED: too hot" in hot


def test_durable_jobs_that_are_to_be_done_or_have_failed_are_told() -> None:
    jobs = GatewayJobs(queued=12, running=2, succeeded=300, failed=1)
    text = "\n".join(screen(Known(guard(gateway=gateway(jobs=jobs))), NOW_UNIX_SECONDS))
    assert "Requests: 3 of 100 waiting; jobs: 12 waiting, 2 running, 1 failed" in text
    done = "\n".join(
        screen(Known(guard(gateway=gateway(jobs=GatewayJobs(succeeded=3)))), NOW_UNIX_SECONDS)
    )
    assert "jobs" not in done


def test_orphans_are_named_and_unknown_is_not_none() -> None:
    data = guard(
        orphans=[orphan(800 + n, vram_bytes=2**30) for n in range(5)], scans={0: "", 1: "no driver"}
    )
    lines = screen(Known(data), NOW_UNIX_SECONDS)
    assert "Orphans: 5, 5.0 GiB" in lines
    assert "  PID 800 python3 (foreign) holds 1.0 GiB of GPU 0 for 2 min" in lines
    assert "  unknown of GPU 1: no driver" in lines
    blind = screen(Known(guard(scans={0: "no driver"})), NOW_UNIX_SECONDS)
    assert "Orphans: unknown of GPU 0: no driver" in blind


def test_with_the_supervisor_gone_each_part_says_how_old_it_is() -> None:
    known = Known(
        guard(state=ServiceState.DEGRADED, reasons=["medgemma-guard.service is not running"]),
        "it is gone",
        is_down=True,
        origins=Origins("by systemd, now", "by their guards, 1 s ago", "", "LAST KNOWN, 9 s ago"),
    )
    lines = screen(known, NOW_UNIX_SECONDS)
    assert lines[:2] == [
        "gpuwarden 0.1.0 is NOT RUNNING",
        "  because: medgemma-guard.service is not running",
    ]
    for line in (
        "Workers (by systemd, now): 2 of 2 ready",
        "Cards (by their guards, 1 s ago)",
        "Orphans (LAST KNOWN, 9 s ago): none",
    ):
        assert line in lines


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
    assert screen(Known(guard(tuning=tuning)), NOW_UNIX_SECONDS)[-1] == line


def test_a_service_in_trouble_says_why_and_what_would_help() -> None:
    data = guard(
        state=ServiceState.DEGRADED,
        simulated=True,
        reasons=["worker 1 failed", "the former configuration is in use: gpuwarden.toml:3: x"],
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
    assert len(lines) < SCREEN_LINES
    text = "\n".join(lines)
    assert lines[0] == "gpuwarden 0.1.0 is DEGRADED with SIMULATED cards"
    assert lines[1:3] == [f"  because: {reason}" for reason in data.reasons]
    assert "  worker 1: load(): x" in lines
    assert "  gpu 1: no answer" in lines
    assert "the gateway has not published its state" in text
    for command in (
        "gpuwarden config check",
        "gpuwarden logs --worker 1",
        "gpuwarden logs --gpu 1",
        "systemctl status medgemma-gateway.socket medgemma-gateway.service",
    ):
        assert f"\n  {command}" in text


def test_nothing_a_service_says_can_paint_the_terminal() -> None:
    data = guard(
        reasons=["\x1b[2J\nfake"], workers=[worker(0, last_error="a\x1b]0;x\x07\nb", cpus="\x1b")]
    )
    assert all(line.isprintable() for line in screen(Known(data), NOW_UNIX_SECONDS))


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
