# SPDX-License-Identifier: Apache-2.0
import json
import sys
from dataclasses import replace

import pytest

from gpuwarden.chart.series import Moment, in_order
from gpuwarden.cli.thermal import exit_code
from gpuwarden.cli.thermal_report import report
from gpuwarden.cli.thermal_screen import card_lines
from gpuwarden.cli.thermal_sources import CardHeat
from gpuwarden.control.requests import Override, ThermalEvent
from gpuwarden.values import ThermalState
from tests.unit.cli.samples import NOW_UNIX_SECONDS, gpu, since


def moments() -> tuple[Moment, ...]:
    """An hour of 40 C with ten minutes of 79 C before the last ten."""
    return tuple(
        in_order(
            Moment(
                NOW_UNIX_SECONDS - 3600 + n,
                ThermalState.ALERT if 2400 <= n < 3000 else ThermalState.NORMAL,
                79.0 if 2400 <= n < 3000 else 40.0,
                memory_celsius=83.0,
                watts=300.0,
                limit_watts=350.0,
            )
            for n in range(3600)
        )
    )


def heat(**changes: object) -> CardHeat:
    data = gpu(
        0,
        state=ThermalState.ALERT,
        reason="die 79 C, alert is 78 C",
        since=since(300),
        temperature_celsius=79.0,
        alert_celsius=78.0,
        critical_celsius=85.0,
        safe_celsius=72.0,
        power_watts=349.6,
        power_limit_watts=350.0,
        original_power_limit_watts=700.0,
        batch_limit=2,
        dispatch_duty=0.75,
        throttles=3,
        recoveries=2,
        sm_clock_lock_mhz=1200,
        actuators={"power-limit": "", "batch-limit": "", "memory-clock-lock": "off"},
    )
    whole = CardHeat(
        data,
        "guard",
        policy="regulated",
        memory_alert_celsius=88.0,
        memory_critical_celsius=95.0,
        override=Override(state="alert", until_unix_microseconds=since(-600)),
        events=(ThermalEvent(unix_microseconds=since(60), event="x", message="normal -> alert"),),
        moments=moments(),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]  # by the caller's word


def test_everything_that_a_guard_tells_on_one_block() -> None:
    lines = card_lines(heat(), NOW_UNIX_SECONDS, "utf-8")
    when = lines[-1].split(" normal")[0].removeprefix("  events       ")
    assert lines == [
        "GPU 0 NVIDIA H200 is ALERT for 5 min: die 79 C, alert is 78 C",
        "  temperature  die 79 C (safe 72, alert 78, critical 85)",
        "               HBM 44 C (alert 88, critical 95)",
        "  power        350 of 350 W, the original limit is 700 W",
        "  SM clock     locked to at most 1200 MHz",
        "  work         batches of 2, dispatched 75 % of the time, admission open",
        "  throttled    3 times since the boot, recovered 2 times",
        "  policy       regulated",
        "  override     alert, 10 min left",
        "  actuators    power-limit, batch-limit",
        "               no memory-clock-lock: off",
        "  hour's most  die 79 C, HBM 83 C, 300 W",
        f"  last hour    40 C |{'▁' * 32}{'█' * 8}{'▁' * 8}| 79 C",
        f"  events       {when} normal -> alert",
    ]


def test_a_cool_card_says_so() -> None:
    cool = gpu(0, actuators={}, memory_temperature_celsius=None)
    lines = card_lines(heat(data=cool, override=None, events=(), moments=()), NOW_UNIX_SECONDS, "")
    text = "\n".join(lines)
    assert lines[0] == "GPU 0 NVIDIA H200 is NORMAL for 2 h"
    for part in (
        *("HBM has no sensor", "not locked", "batches unlimited, dispatched 100 %"),
        *("override     none", "actuators    none", "last hour    -", "events       none"),
    ):
        assert part in text


def test_what_a_source_leaves_out_is_named_and_not_shown_as_nothing() -> None:
    unknown = ("policy", "HBM thresholds", "override", "events", "history")
    without = heat(
        source="snapshot",
        unknown=unknown,
        caveat="only root may ask",
        policy=None,
        override=None,
        events=(),
        moments=(),
    )
    lines = card_lines(without, NOW_UNIX_SECONDS, "utf-8")
    assert lines[-2:] == [
        "  not known    policy, HBM thresholds, override, events, history",
        "  because      only root may ask",
    ]
    for name in ("override  ", "events  ", "last hour", "hour's most"):
        assert not any(line.startswith(f"  {name}") for line in lines)
    document = report([without], NOW_UNIX_SECONDS).cards[0]
    assert (document.events, document.minutes, document.highest) == (None, None, None)


def test_a_card_whose_workers_are_to_stop_says_it_loudly() -> None:
    data = gpu(0, state=ThermalState.CRITICAL, stop_requested=True, admission="paused")
    lines = card_lines(heat(data=data), NOW_UNIX_SECONDS, "utf-8")
    assert any("admission paused" in line for line in lines)
    assert "  stop         its workers are to be stopped" in lines


def test_on_a_terminal_long_texts_are_wrapped_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    data = gpu(0, actuators={"power-limit": "a reason " * 20 + "that ends"})
    lines = card_lines(heat(data=data), NOW_UNIX_SECONDS, "utf-8")
    assert all(len(line) <= 80 for line in lines[1:])
    assert any(line.endswith("that ends") for line in lines)


def test_old_news_is_said_to_be_old() -> None:
    lines = card_lines(heat(fresh=False), NOW_UNIX_SECONDS, "utf-8")
    assert lines[0].startswith("GPU 0 NVIDIA H200 is last known as ALERT")


def test_nothing_a_guard_says_can_paint_the_terminal() -> None:
    bad = "\x1b[2J\nfake"
    data = gpu(0, name=bad, reason=bad, actuators={bad: bad, "b\x1b": ""})
    events = (ThermalEvent(unix_microseconds=since(60), event="x", message=bad),)
    lines = card_lines(
        heat(data=data, events=events, policy=bad, caveat=bad, unknown=("policy",)),
        NOW_UNIX_SECONDS,
        "utf-8",
    )
    assert all(line.isprintable() for line in lines)


def test_the_sparkline_is_ascii_where_it_must_be() -> None:
    lines = card_lines(heat(), NOW_UNIX_SECONDS, "ascii")
    assert all(line.isascii() for line in lines)
    assert any(f"|{'_' * 32}{'#' * 8}{'_' * 8}|" in line for line in lines)


@pytest.mark.parametrize(
    ("states", "fresh", "code"),
    [
        ([ThermalState.NORMAL, ThermalState.NORMAL], True, 0),
        ([ThermalState.NORMAL, ThermalState.RECOVERING], True, 1),
        *[([state], True, 1) for state in ThermalState if state is not ThermalState.NORMAL],
        ([ThermalState.NORMAL], False, 3),
    ],
)
def test_exit_codes(states: list[ThermalState], fresh: bool, code: int) -> None:
    cards = [heat(data=gpu(0, state=state), fresh=fresh) for state in states]
    assert exit_code(cards) == code


def test_one_card_that_nobody_guards_is_wrong_not_unreachable() -> None:
    cards = [heat(data=gpu(0)), heat(data=gpu(1), fresh=False)]
    assert exit_code(cards) == 1


def test_the_document_for_scripts() -> None:
    document = json.loads(report([heat()], NOW_UNIX_SECONDS).model_dump_json(by_alias=True))
    (card,) = document.pop("cards")
    assert document == {"schema": 1}
    assert set(card) == {
        *("gpu", "source", "fresh", "unknown", "caveat", "data", "policy"),
        *("memory_alert_celsius", "memory_critical_celsius", "override"),
        *("override_seconds_left", "events", "highest", "minutes"),
    }
    assert card["override_seconds_left"] == 600
    assert card["highest"] == {"celsius": 79, "memory_celsius": 83, "watts": 300}
    assert len(card["minutes"]) == 60
    assert card["minutes"][45]["state"] == "alert"
