# SPDX-License-Identifier: Apache-2.0
"""A card's temperature, power and state over time, as shapes. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from itertools import pairwise

from gpuwarden.chart.scale import Scale, bounds, ticks, time_ticks
from gpuwarden.chart.series import Moment, figure, in_order, spacing_seconds, thinned
from gpuwarden.chart.shapes import Area, Box, Drawing, Label, Line, Point, Shape
from gpuwarden.text import one_line
from gpuwarden.values import ThermalState

WIDTH, HEIGHT = 1200, 760
_LEFT, _RIGHT = 74, 1106
_TEMPERATURE_TOP, _TEMPERATURE_BOTTOM = 96, 440
_POWER_TOP, _POWER_BOTTOM = 474, 690
_MOMENTS_DRAWN = 1000  # about as many as there are pixels
_GAP_SPACINGS = 4.0  # a line is not drawn across a longer silence
_TITLE_CHARACTERS = 110

_INK, _GREY, _GRID = "#222222", "#666666", "#e4e4e4"
_DIE, _DIE_RANGE, _MEMORY = "#1b5fad", "#1b5fad", "#8a3fb0"
_ALERT, _CRITICAL = "#c77700", "#c4161c"
_POWER, _LIMIT = "#1d7a54", "#222222"
# Told apart by lightness too, for eyes that tell no red from green and for printers.
_STATES = {
    ThermalState.RECOVERING: "#dcecfa",
    ThermalState.ALERT: "#ffe9b8",
    ThermalState.CRITICAL: "#ffb9b0",
    ThermalState.BLIND: "#d9d9d9",
    ThermalState.RELEASED: "#e9dff3",
    ThermalState.LOST: "#b9b9b9",
}


@dataclass(frozen=True, slots=True)
class ThermalRecord:
    """What is drawn.

    :ivar title: the card, or what was simulated; the range of time is added.
    :ivar zone: the moments count from 1970 and are shown in this zone; None: they count from a
        start.
    """

    title: str
    moments: Sequence[Moment]
    alert_celsius: float | None = None
    critical_celsius: float | None = None
    memory_alert_celsius: float | None = None
    memory_critical_celsius: float | None = None
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class _Panel:
    """One of the two frames: its axes and what is drawn in it."""

    x: Scale
    y: Scale
    moments: Sequence[Moment]
    spacing_seconds: float


def thermal_drawing(record: ThermalRecord) -> Drawing:
    """Temperature above, power below, the states behind both; says so where nothing is known."""
    record = _sound(record)
    moments = thinned(in_order(record.moments), _MOMENTS_DRAWN)
    title = one_line(record.title)[:_TITLE_CHARACTERS]
    shapes: list[Shape] = [Box(0, 0, WIDTH, HEIGHT, "#ffffff")]
    if not moments:
        shapes += [
            Label(_LEFT, 40, title, 20, bold=True, colour=_INK),
            Label(WIDTH / 2, HEIGHT / 2, "nothing is recorded yet", 16, "middle", _GREY),
        ]
        return Drawing(WIDTH, HEIGHT, title, tuple(shapes))
    spacing = spacing_seconds(moments)
    start, end = moments[0].at_seconds, moments[-1].at_seconds + spacing
    x = Scale(start, end, _LEFT, _RIGHT)
    title = f"{title}, {_range(start, end, record.zone)}"
    temperature = _Panel(x, _celsius_scale(moments, record), moments, spacing)
    power = _Panel(x, _watts_scale(moments), moments, spacing)
    shapes.append(Label(_LEFT, 40, title, 20, bold=True, colour=_INK))
    shapes += _legend(moments)
    shapes += _frame(temperature, "temperature in \u00b0C", 7)
    shapes += _thresholds(record, temperature.y)
    shapes += _temperature_lines(temperature)
    shapes += _frame(power, "power in W", 5)
    shapes += _power_lines(power)
    shapes += _time_axis(x, record.zone)
    return Drawing(WIDTH, HEIGHT, title, tuple(shapes))


def _sound(record: ThermalRecord) -> ThermalRecord:
    """The record without thresholds that are no temperatures."""
    return replace(
        record,
        alert_celsius=figure(record.alert_celsius),
        critical_celsius=figure(record.critical_celsius),
        memory_alert_celsius=figure(record.memory_alert_celsius),
        memory_critical_celsius=figure(record.memory_critical_celsius),
    )


def _celsius_scale(moments: Sequence[Moment], record: ThermalRecord) -> Scale:
    wanted = [
        *(each.celsius_lowest for each in moments),
        *(each.celsius_highest for each in moments),
        *(each.memory_celsius for each in moments),
        *(record.alert_celsius, record.critical_celsius),
    ]
    if any(each.memory_celsius is not None for each in moments):
        wanted.append(record.memory_alert_celsius)
    low, high = bounds(_known(wanted) or [20.0, 90.0], 5.0)
    return Scale(low, high, _TEMPERATURE_BOTTOM, _TEMPERATURE_TOP)


def _watts_scale(moments: Sequence[Moment]) -> Scale:
    values = [
        value for each in moments for value in (each.watts, each.watts_highest, each.limit_watts)
    ]
    top = max([*_known(values), 10.0])
    low = min([*_known(values), 0.0])
    return Scale(low, top * 1.08, _POWER_BOTTOM, _POWER_TOP)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _frame(panel: _Panel, name: str, about: int) -> list[Shape]:
    """The states' bands, the grid with its figures, the axis and what it measures."""
    top, bottom = panel.y.at_high, panel.y.at_low
    shapes: list[Shape] = list(_bands(panel))
    for value in ticks(panel.y.low, panel.y.high, about):
        y = panel.y(value)
        shapes.append(Line(((_LEFT, y), (_RIGHT, y)), _GRID))
        shapes.append(Label(_LEFT - 8, y + 4, f"{value:g}", 13, "end", _GREY))
    shapes.append(Line(((_LEFT, top), (_LEFT, bottom), (_RIGHT, bottom)), _GREY, 1.2))
    shapes.append(Label(24, (top + bottom) / 2, name, 14, "middle", _INK, turned=True))
    return shapes


def _bands(panel: _Panel) -> list[Box]:
    """One box a run of the same state; none for normal."""
    top = panel.y.at_high
    height = panel.y.at_low - top
    boxes: list[Box] = []
    for state, start, end in _runs(panel):
        if state in _STATES:
            left = panel.x(start)
            # A spell of a second would be less than a pixel, and mustn't go unseen.
            width = min(max(panel.x(end) - left, 2.0), _RIGHT - left)
            boxes.append(Box(left, top, width, height, _STATES[state]))
    return boxes


def _runs(panel: _Panel) -> list[tuple[ThermalState, float, float]]:
    """State, beginning and end of each stretch in which it was known."""
    longest = panel.spacing_seconds * _GAP_SPACINGS
    ends = [moment.at_seconds for moment in panel.moments[1:]]
    ends.append(panel.moments[-1].at_seconds + panel.spacing_seconds)
    runs: list[tuple[ThermalState, float, float]] = []
    for moment, following in zip(panel.moments, ends, strict=True):
        start = moment.at_seconds
        end = following if following - start <= longest else start + panel.spacing_seconds
        if runs and runs[-1][0] == moment.state and runs[-1][2] == start:
            runs[-1] = (moment.state, runs[-1][1], end)
        else:
            runs.append((moment.state, start, end))
    return runs


def _thresholds(record: ThermalRecord, y: Scale) -> list[Shape]:
    """Dashed lines, named at their right end; the memory's where they are on the axis."""
    lines = [
        ("alert", record.alert_celsius, _ALERT, 1.6, (9.0, 5.0)),
        ("critical", record.critical_celsius, _CRITICAL, 1.6, (9.0, 5.0)),
        ("HBM alert", record.memory_alert_celsius, _MEMORY, 1.2, (3.0, 4.0)),
        ("HBM critical", record.memory_critical_celsius, _MEMORY, 1.2, (3.0, 4.0)),
    ]
    shapes: list[Shape] = []
    named: list[float] = []
    for name, celsius, colour, width, dash in lines:
        if celsius is None or not y.low <= celsius <= y.high:
            continue
        at = y(celsius)
        shapes.append(Line(((_LEFT, at), (_RIGHT, at)), colour, width, dash))
        if all(abs(at - other) >= 12 for other in named):
            named.append(at)
            shapes.append(Label(_RIGHT + 6, at + 4, name, 12, colour=colour))
    return shapes


def _temperature_lines(panel: _Panel) -> list[Shape]:
    shapes: list[Shape] = []
    highest = _segments(panel, lambda each: each.celsius_highest if _has_range(each) else None)
    lowest = _segments(panel, lambda each: each.celsius_lowest if _has_range(each) else None)
    for above, below in zip(highest, lowest, strict=True):
        if len(above) > 1:
            shapes.append(Area((*above, *reversed(below)), _DIE_RANGE, 0.22))
    shapes += _lines(_segments(panel, lambda each: each.memory_celsius), _MEMORY, 1.6)
    return shapes + _lines(_segments(panel, lambda each: each.celsius), _DIE, 2.0)


def _has_range(moment: Moment) -> bool:
    return moment.celsius_lowest is not None and moment.celsius_highest is not None


def _power_lines(panel: _Panel) -> list[Shape]:
    shapes: list[Shape] = []
    floor = panel.y(max(panel.y.low, 0.0))
    for segment in _segments(panel, lambda each: each.watts):
        if len(segment) > 1:
            outline = (*segment, (segment[-1][0], floor), (segment[0][0], floor))
            shapes.append(Area(outline, _POWER, 0.15))
    shapes += _lines(_segments(panel, lambda each: each.watts), _POWER, 1.8)
    limits = _segments(panel, lambda each: each.limit_watts)
    return shapes + _lines([_stairs(each) for each in limits], _LIMIT, 1.6)


def _segments(panel: _Panel, value_of: Callable[[Moment], float | None]) -> list[tuple[Point, ...]]:
    """The values as points, in a new segment after each gap."""
    longest = panel.spacing_seconds * _GAP_SPACINGS
    segments: list[list[Point]] = []
    before: float | None = None
    for moment in panel.moments:
        value = value_of(moment)
        if value is None:
            before = None
            continue
        if before is None or moment.at_seconds - before > longest:
            segments.append([])
        segments[-1].append((panel.x(moment.at_seconds), panel.y(value)))
        before = moment.at_seconds
    return [tuple(segment) for segment in segments]


def _stairs(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """A limit holds until the next is set: steps, no slopes."""
    steps = list(points[:1])
    for (_, y_before), (x, y) in pairwise(points):
        if y != y_before:
            steps.append((x, y_before))
        steps.append((x, y))
    return tuple(steps)


def _lines(segments: Iterable[tuple[Point, ...]], colour: str, width: float) -> list[Shape]:
    """Lines; a moment that stands alone is a dot."""
    return [
        Line(segment, colour, width)
        if len(segment) > 1
        else Box(segment[0][0] - 1.5, segment[0][1] - 1.5, 3, 3, colour)
        for segment in segments
    ]


def _legend(moments: Sequence[Moment]) -> list[Shape]:
    """What the colours mean: the lines first, then the states that occur."""
    entries: list[tuple[str, str, bool]] = [("die (mean and range)", _DIE, False)]
    if any(each.memory_celsius is not None for each in moments):
        entries.append(("HBM", _MEMORY, False))
    entries += [("power", _POWER, False), ("power limit", _LIMIT, False)]
    present = {each.state for each in moments}
    entries += [(state, colour, True) for state, colour in _STATES.items() if state in present]
    shapes: list[Shape] = []
    x = float(_LEFT)
    for name, colour, is_band in entries:
        if is_band:
            shapes.append(Box(x, 60, 24, 14, _GREY))
            shapes.append(Box(x + 1, 61, 22, 12, colour))
        else:
            shapes.append(Box(x, 65, 24, 4, colour))
        shapes.append(Label(x + 31, 72, name, 13, colour=_INK))
        x += 31 + 7.5 * len(name) + 22
    return shapes


def _time_axis(x: Scale, zone: tzinfo | None) -> list[Shape]:
    shapes: list[Shape] = []
    for moment, written in time_ticks(x.low, x.high, 10, zone):
        at = x(moment)
        shapes.append(Line(((at, _POWER_BOTTOM), (at, _POWER_BOTTOM + 6)), _GREY))
        shapes.append(Line(((at, _TEMPERATURE_BOTTOM), (at, _TEMPERATURE_BOTTOM + 6)), _GREY))
        shapes.append(Label(at, _POWER_BOTTOM + 23, written, 13, "middle", _GREY))
    name = "minutes since the start" if zone is None else f"time of day ({_zone_name(x.low, zone)})"
    middle = (_LEFT + _RIGHT) / 2
    shapes.append(Label(middle, _POWER_BOTTOM + 48, name, 14, "middle", _INK))
    return shapes


def _range(start: float, end: float, zone: tzinfo | None) -> str:
    if zone is None:
        return f"{(end - start) / 60:.0f} minutes"
    first = datetime.fromtimestamp(start, UTC).astimezone(zone)
    last = datetime.fromtimestamp(end, UTC).astimezone(zone)
    until = f"{last:%H:%M}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M}"
    return f"{first:%Y-%m-%d %H:%M} to {until}"


def _zone_name(at_seconds: float, zone: tzinfo) -> str:
    return one_line(f"{datetime.fromtimestamp(at_seconds, UTC).astimezone(zone):%Z}")
