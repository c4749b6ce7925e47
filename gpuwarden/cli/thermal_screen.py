# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden thermal`` for people: one block a card. Pure, but for the terminal."""

import shutil
import sys
import textwrap
from datetime import datetime

from gpuwarden.cli.gpus import BAD_STATES
from gpuwarden.cli.output import UNKNOWN, coloured, duration, number, of
from gpuwarden.cli.sparkline import sparkline
from gpuwarden.cli.thermal_report import highest, last_hour, seconds_left
from gpuwarden.cli.thermal_sources import EVENTS, HISTORY, OVERRIDE, CardHeat
from gpuwarden.control.states import ThermalData
from gpuwarden.text import one_line
from gpuwarden.values import ThermalState

EVENTS_SHOWN = 5
SPARKLINE_PARTS = 48  # 75 s each: the line fits on a terminal of 80 columns
_NAME_WIDTH = 13
_UNREAD = frozenset({ThermalState.BLIND, ThermalState.LOST, ThermalState.RELEASED})


def card_lines(heat: CardHeat, now_unix_seconds: float, encoding: str | None) -> list[str]:
    """One card's block; ``encoding`` is that of where it is written."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    before, state, kind, behind = headline(heat, now_unix_seconds)
    head = f"{before}{coloured(state, kind)}{behind}"
    return [head, *entry_lines(heat, now_unix_seconds, encoding, columns)]


def entry_lines(
    heat: CardHeat, now_unix_seconds: float, encoding: str | None, columns: int | None
) -> list[str]:
    """What is known of the card, below its headline; wrapped to so many columns if any."""
    data = heat.data
    pairs = [
        ("temperature", _die(data)),
        ("", _memory(heat)),
        ("power", _power(data)),
        ("SM clock", _clock(data)),
        ("work", _work(data)),
        ("stop", "its workers are to be stopped" if data.stop_requested else ""),
        ("throttled", f"{data.throttles} times since the boot, recovered {data.recoveries} times"),
        ("policy", heat.policy or ""),
        ("override", _override(heat, now_unix_seconds)),
        *_actuators(data),
        ("hour's most", _highest(heat)),
        ("last hour", _sparkline(heat, now_unix_seconds, encoding)),
        *_events(heat),
        ("not known", ", ".join(heat.unknown)),
        ("because", heat.caveat if heat.unknown else ""),
    ]
    return [each for name, text in pairs if text for each in _entry(name, text, columns)]


def _entry(name: str, text: str, columns: int | None) -> list[str]:
    """A name and its text, on a terminal in as many lines as that takes."""
    text = one_line(text)
    indent = " " * (2 + _NAME_WIDTH)
    parts = [text]
    # Not what fits: the blanks of a sparkline are minutes of which nothing is known.
    if columns is not None and len(text) > columns - len(indent):
        parts = textwrap.wrap(text, max(columns - len(indent), 20))
    first, *rest = parts
    return [f"  {name:<{_NAME_WIDTH}}{first}", *(f"{indent}{part}" for part in rest)]


def headline(heat: CardHeat, now: float) -> tuple[str, str, str, str]:
    """What stands before the state, the state, how that is painted, and what stands behind it."""
    data = heat.data
    state = data.state.upper() if heat.fresh else f"last known as {data.state.upper()}"
    kind = "good" if heat.is_good else "warn"
    if data.state in BAD_STATES or not heat.fresh:
        kind = "bad"
    since = duration(now - data.since / 1e6)
    reason = f": {one_line(data.reason)}" if data.reason else ""
    name = f" {one_line(data.name)}" if data.name else ""
    return f"GPU {data.index}{name} is ", state, kind, f" for {since}{reason}"


def _die(data: ThermalData) -> str:
    own = (data.safe_celsius, data.alert_celsius, data.critical_celsius)
    limits = ", ".join(
        f"{name} {number(celsius)}"
        for name, celsius in zip(("safe", "alert", "critical"), own, strict=True)
    )
    return f"die {number(data.temperature_celsius, ' C')} ({limits})"


def _memory(heat: CardHeat) -> str:
    celsius = heat.data.memory_temperature_celsius
    if celsius is None:
        return "" if heat.data.state in _UNREAD else "HBM has no sensor"
    memory = f"HBM {celsius:.0f} C"
    alert, critical = heat.memory_alert_celsius, heat.memory_critical_celsius
    if alert is None and critical is None:
        return memory
    return f"{memory} (alert {number(alert)}, critical {number(critical)})"


def _power(data: ThermalData) -> str:
    drawn = of(number(data.power_watts), number(data.power_limit_watts)).replace("/", " of ")
    original = data.original_power_limit_watts
    return f"{drawn} W" + ("" if original is None else f", the original limit is {original:.0f} W")


def _clock(data: ThermalData) -> str:
    lock = data.sm_clock_lock_mhz
    return "not locked" if lock is None else f"locked to at most {lock} MHz"


def _work(data: ThermalData) -> str:
    batch = "batches unlimited" if data.batch_limit is None else f"batches of {data.batch_limit}"
    duty = f"dispatched {data.dispatch_duty * 100:.0f} % of the time"
    return f"{batch}, {duty}, admission {data.admission}"


def _override(heat: CardHeat, now: float) -> str:
    if heat.override is None:
        return "" if OVERRIDE in heat.unknown else "none"
    left = duration(seconds_left(heat.override, now))
    return f"{heat.override.state}, {left} left"


def _actuators(data: ThermalData) -> list[tuple[str, str]]:
    usable = [one_line(name) for name, reason in data.actuators.items() if not reason]
    missing = [(name, reason) for name, reason in data.actuators.items() if reason]
    pairs = [("actuators", ", ".join(usable) or "none")]
    return pairs + [("", f"no {name}: {reason}") for name, reason in missing]


def _highest(heat: CardHeat) -> str:
    if HISTORY in heat.unknown:
        return ""
    most = highest(heat)
    memory = "" if most.memory_celsius is None else f", HBM {most.memory_celsius:.0f} C"
    return f"die {number(most.celsius, ' C')}{memory}, {number(most.watts, ' W')}"


def _sparkline(heat: CardHeat, now: float, encoding: str | None) -> str:
    """The hottest of each part, between the least and the most of them."""
    if HISTORY in heat.unknown:
        return ""
    parts = last_hour(heat, now, SPARKLINE_PARTS)
    values = [each.celsius_highest if each else None for each in parts]
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    return f"{min(known):.0f} C |{sparkline(values, encoding)}| {max(known):.0f} C"


def _events(heat: CardHeat) -> list[tuple[str, str]]:
    if EVENTS in heat.unknown:
        return []
    shown = [f"{_when(each.unix_microseconds)} {each.message}" for each in heat.events]
    names = ["events", *([""] * EVENTS_SHOWN)]
    return list(zip(names, shown[-EVENTS_SHOWN:] or ["none"], strict=False))


def _when(unix_microseconds: int) -> str:
    """The local time, as the journal's short form has it, with the date in full."""
    return f"{datetime.fromtimestamp(unix_microseconds / 1e6).astimezone():%Y-%m-%d %H:%M:%S}"
