# SPDX-License-Identifier: Apache-2.0
"""A trial on a real card as a drawing: samples, peaks and means, watts, duty. Pure."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from gpuwarden.chart.scale import Scale, bounds, ticks, time_ticks
from gpuwarden.chart.shapes import Box, Drawing, Label, Line, Point, Shape
from tools.trial_figures import SAMPLE_SECONDS, WINDOW, Sample

WIDTH, HEIGHT = 1200, 800
_LEFT, _RIGHT = 74, 1106
_PANELS = ((96, 430), (462, 620), (652, 750))  # top and bottom: degrees, watts, duty
_INK, _GREY, _GRID = "#222222", "#666666", "#e4e4e4"
_SAMPLES, _MEAN, _PEAK, _ALERT = "#9dbfe0", "#1b3f8a", "#c4161c", "#c77700"
_POWER, _DUTY, _LOWERED = "#1d7a54", "#222222", "#fff4dc"
_NEAR_CELSIUS = 15.0  # a threshold so far above every sample is not drawn

ValueOf = Callable[[Sample], float]


def trial_drawing(title: str, samples: Sequence[Sample]) -> Drawing:
    """Three frames over one axis of time; the lowered threshold as a band behind them."""
    x = Scale(0.0, samples[-1].seconds + SAMPLE_SECONDS, _LEFT, _RIGHT)
    dies = [each.die_celsius for each in samples]
    low, high = bounds(dies, 5.0)
    celsius = Scale(low, high, _PANELS[0][1], _PANELS[0][0])
    watts = Scale(0, max(s.watts for s in samples) * 1.05, _PANELS[1][1], _PANELS[1][0])
    duty = Scale(0, 108, _PANELS[2][1], _PANELS[2][0])
    held = [each for each in samples if each.alert_celsius < max(dies) + _NEAR_CELSIUS]
    start, end = x(held[0].seconds), x(held[-1].seconds + SAMPLE_SECONDS)
    shapes: list[Shape] = [Box(0, 0, WIDTH, HEIGHT, "#ffffff")]
    shapes += [Box(start, top, end - start, bottom - top, _LOWERED) for top, bottom in _PANELS]
    shapes += _frame(celsius, "temperature in \u00b0C", 6)
    shapes += _frame(watts, "power in W", 4)
    shapes += _frame(duty, "duty in %", 4)
    shapes += [
        Line(_points(x, celsius, samples, lambda s: s.die_celsius), _SAMPLES, 0.9),
        Line(_points(x, celsius, samples[WINDOW:], lambda s: s.peak_celsius), _PEAK, 1.6),
        Line(_points(x, celsius, samples[WINDOW:], lambda s: s.mean_celsius), _MEAN, 2.4),
        Line(_points(x, watts, samples, lambda s: s.watts), _POWER, 0.7),
        Line(_stairs(_points(x, duty, samples, lambda s: s.duty * 100)), _DUTY, 1.8),
        *_alert(start, end, celsius(held[0].alert_celsius), held[0].alert_celsius),
    ]
    shapes += _phases(x, samples)
    shapes += _time_axis(x)
    shapes.append(Label(_LEFT, 40, title, 20, bold=True, colour=_INK))
    shapes += _legend()
    return Drawing(WIDTH, HEIGHT, title, tuple(shapes))


def _points(x: Scale, y: Scale, samples: Sequence[Sample], value: ValueOf) -> tuple[Point, ...]:
    return tuple((x(each.seconds), y(value(each))) for each in samples)


def _stairs(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """A duty holds until the next: steps, no slopes; nothing between two that are alike."""
    steps = [points[0]]
    for (_, before), (x, y) in pairwise(points):
        if y != before:
            steps += [(x, before), (x, y)]
    return (*steps, points[-1])


def _frame(y: Scale, name: str, about: int) -> list[Shape]:
    top, bottom = y.at_high, y.at_low
    shapes: list[Shape] = []
    for value in ticks(y.low, y.high, about):
        at = y(value)
        shapes.append(Line(((_LEFT, at), (_RIGHT, at)), _GRID))
        shapes.append(Label(_LEFT - 8, at + 4, f"{value:g}", 13, "end", _GREY))
    shapes.append(Line(((_LEFT, top), (_LEFT, bottom), (_RIGHT, bottom)), _GREY, 1.2))
    shapes.append(Label(24, (top + bottom) / 2, name, 14, "middle", _INK, turned=True))
    return shapes


def _alert(start: float, end: float, at: float, celsius: float) -> list[Shape]:
    return [
        Line(((start, at), (end, at)), _ALERT, 2.0, (9.0, 5.0)),
        Label(end + 6, at + 4, f"alert {celsius:g}", 12, colour=_ALERT),
    ]


def _phases(x: Scale, samples: Sequence[Sample]) -> list[Shape]:
    """The name of each phase over its middle."""
    shapes: list[Shape] = []
    for name in dict.fromkeys(each.phase for each in samples):
        inside = [each.seconds for each in samples if each.phase == name]
        middle = x((inside[0] + inside[-1]) / 2)
        shapes.append(Label(middle, _PANELS[0][0] - 5, name, 13, "middle", _GREY))
    return shapes


def _time_axis(x: Scale) -> list[Shape]:
    shapes: list[Shape] = []
    for moment, written in time_ticks(x.low, x.high, 10, None):
        at = x(moment)
        shapes += [Line(((at, low), (at, low + 6)), _GREY) for _, low in _PANELS]
        shapes.append(Label(at, _PANELS[2][1] + 22, written, 13, "middle", _GREY))
    middle = (_LEFT + _RIGHT) / 2
    shapes.append(Label(middle, HEIGHT - 8, "minutes", 14, "middle", _INK))
    return shapes


def _legend() -> list[Shape]:
    entries = (
        ("die, 5 samples a second", _SAMPLES),
        ("die, mean of 10 s", _MEAN),
        ("die, peak of 10 s", _PEAK),
        ("alert threshold while lowered", _ALERT),
        ("power", _POWER),
        ("dispatch duty", _DUTY),
    )
    shapes: list[Shape] = []
    x = float(_LEFT)
    for name, colour in entries:
        shapes.append(Box(x, 60, 24, 4, colour))
        shapes.append(Label(x + 31, 67, name, 13, colour=_INK))
        x += 31 + 7.2 * len(name) + 20
    return shapes
