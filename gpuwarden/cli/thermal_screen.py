"""``gpuwarden thermal`` for people: one block a card. Pure, but for the terminal's width."""

from collections.abc import Sequence
from datetime import datetime

from gpuwarden.cli.gpus import BAD_STATES
from gpuwarden.cli.output import UNKNOWN, coloured, duration, fitted, number, of
from gpuwarden.cli.sparkline import sparkline
from gpuwarden.cli.thermal_report import highest, last_hour, seconds_left
from gpuwarden.cli.thermal_sources import EVENTS, HISTORY, OVERRIDE, CardHeat
from gpuwarden.control.states import ThermalData
from gpuwarden.text import one_line
from gpuwarden.values import ThermalState

EVENTS_SHOWN = 5
_NAME_WIDTH = 13


def card_lines(heat: CardHeat, now_unix_seconds: float, encoding: str | None) -> list[str]:
    """One card's block; ``encoding`` is that of where it is written."""
    data = heat.data
    pairs = [
        ("temperature", _temperatures(heat)),
        ("power", _power(data)),
        ("SM clock", _clock(data)),
        ("work", _work(data)),
        ("throttled", f"{data.throttles} times since the boot, recovered {data.recoveries} times"),
        ("policy", heat.policy or ""),
        ("override", _override(heat, now_unix_seconds)),
        *_actuators(data),
        ("hour's most", _highest(heat)),
    ]
    lines = [_head(heat, now_unix_seconds)]
    lines += [_line(name, text) for name, text in pairs if text]
    lines += _sparkline(heat, now_unix_seconds, encoding)
    lines += _events(heat)
    if heat.unknown:
        lines.append(_line("not known", f"{', '.join(heat.unknown)} ({heat.caveat})"))
    return lines


def _line(name: str, text: str) -> str:
    return fitted(f"  {name:<{_NAME_WIDTH}}{text}")


def _head(heat: CardHeat, now: float) -> str:
    data = heat.data
    state = data.state.upper() if heat.fresh else f"last known as {data.state.upper()}"
    kind = "good" if heat.is_good else "warn"
    if data.state in BAD_STATES or not heat.fresh:
        kind = "bad"
    since = duration(now - data.since / 1e6)
    reason = f": {one_line(data.reason)}" if data.reason else ""
    name = f" {one_line(data.name)}" if data.name else ""
    return f"GPU {data.index}{name} is {coloured(state, kind)} for {since}{reason}"


def _temperatures(heat: CardHeat) -> str:
    data = heat.data
    own = (data.safe_celsius, data.alert_celsius, data.critical_celsius)
    limits = ", ".join(
        f"{name} {number(celsius)}"
        for name, celsius in zip(("safe", "alert", "critical"), own, strict=True)
    )
    die = f"die {number(data.temperature_celsius, ' C')} ({limits})"
    if data.memory_temperature_celsius is None:
        return f"{die}, HBM has no sensor" if data.state not in _UNREAD else die
    memory = f"HBM {number(data.memory_temperature_celsius, ' C')}"
    if heat.memory_alert_celsius is not None or heat.memory_critical_celsius is not None:
        alert, critical = heat.memory_alert_celsius, heat.memory_critical_celsius
        memory += f" (alert {number(alert)}, critical {number(critical)})"
    return f"{die}, {memory}"


_UNREAD = frozenset({ThermalState.BLIND, ThermalState.LOST, ThermalState.RELEASED})


def _power(data: ThermalData) -> str:
    drawn = of(number(data.power_watts), number(data.power_limit_watts)).replace("/", " of ")
    original = data.original_power_limit_watts
    return f"{drawn} W" + ("" if original is None else f", the original limit is {original:.0f} W")


def _clock(data: ThermalData) -> str:
    lock = data.sm_clock_lock_mhz
    return "not locked" if lock is None else f"locked to at most {lock} MHz"


def _work(data: ThermalData) -> str:
    batch = "batches unlimited" if data.batch_limit is None else f"batches of {data.batch_limit}"
    parts = [batch, f"dispatched {data.dispatch_duty * 100:.0f} % of the time"]
    parts.append(f"admission {data.admission}")
    if data.stop_requested:
        parts.append(coloured("ITS WORKERS ARE TO STOP", "bad"))
    return ", ".join(parts)


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


def _sparkline(heat: CardHeat, now: float, encoding: str | None) -> list[str]:
    """The hottest of each minute, between the least and the most of them."""
    if HISTORY in heat.unknown:
        return []
    values = [each.celsius_highest if each else None for each in last_hour(heat, now)]
    known = [value for value in values if value is not None]
    if not known:
        return [_line("last hour", UNKNOWN)]
    line = sparkline(values, encoding)
    # Not through one_line: the blanks at its start are minutes of which nothing is known.
    return [_line("last hour", f"{min(known):.0f} C |{line}| {max(known):.0f} C")]


def _events(heat: CardHeat) -> list[str]:
    if EVENTS in heat.unknown:
        return []
    shown: Sequence[tuple[str, str]] = [
        (_when(event.unix_microseconds), event.message) for event in heat.events[-EVENTS_SHOWN:]
    ]
    if not shown:
        return [_line("events", "none")]
    return [
        _line("events" if n == 0 else "", f"{when} {text}") for n, (when, text) in enumerate(shown)
    ]


def _when(unix_microseconds: int) -> str:
    """The local time, as the journal's short form has it, with the date in full."""
    return f"{datetime.fromtimestamp(unix_microseconds / 1e6).astimezone():%Y-%m-%d %H:%M:%S}"
