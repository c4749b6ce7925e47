# SPDX-License-Identifier: Apache-2.0
"""Two recordings side by side: a frame for each figure, a line for each recording. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden.chart.scale import Scale, ticks
from gpuwarden.chart.shapes import Box, Drawing, Label, Line, Point, Shape
from gpuwarden.text import one_line

WIDTH, HEAD, FRAME_WIDTH, FRAME_HEIGHT, COLUMNS = 1200, 84, 600, 210, 2
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 580, 40, 170  # within a frame
_TITLE_CHARACTERS = 60
_INK, _GREY, _GRID = "#222222", "#666666", "#e4e4e4"
_A, _B = "#1b5fad", "#c77700"  # of different lightness too
_DASH = (6.0, 4.0)
_DOT = 4.0

Values = Sequence[tuple[float, float]]  # seconds from the start, value


@dataclass(frozen=True, slots=True)
class Frame:
    """One figure of both recordings.

    :ivar verdict: what is said of it.
    """

    title: str
    unit: str
    a: Values
    b: Values
    verdict: str = ""


def baseline_drawing(name_a: str, name_b: str, frames: Sequence[Frame]) -> Drawing:
    """All figures that either recording has."""
    frames = [frame for frame in frames if frame.a or frame.b]
    rows = -(-len(frames) // COLUMNS)
    height = HEAD + FRAME_HEIGHT * max(rows, 1)
    title = one_line(f"{name_a} and {name_b}")[:_TITLE_CHARACTERS]
    shapes: list[Shape] = [
        Box(0, 0, WIDTH, height, "#ffffff"),
        Label(_LEFT, 40, title, 20, bold=True, colour=_INK),
        *_legend(name_a, name_b),
    ]
    if not frames:
        text = "nothing is known of either"
        shapes.append(Label(WIDTH / 2, HEAD + FRAME_HEIGHT / 2, text, 16, "middle", _GREY))
    for place, frame in enumerate(frames):
        row, column = divmod(place, COLUMNS)
        shapes += _frame(frame, column * FRAME_WIDTH, HEAD + row * FRAME_HEIGHT)
    return Drawing(WIDTH, height, title, tuple(shapes))


def _legend(name_a: str, name_b: str) -> list[Shape]:
    shapes: list[Shape] = []
    for x, name, colour, dash in ((_LEFT, name_a, _A, ()), (_LEFT + 400, name_b, _B, _DASH)):
        shapes.append(Line(((x, 62), (x + 30, 62)), colour, 2.4, dash))
        shapes.append(Label(x + 38, 66, one_line(name)[:40], 13, colour=_INK))
    return shapes


def _frame(frame: Frame, left: float, above: float) -> list[Shape]:
    points = [*frame.a, *frame.b]
    top = max(value for _, value in points)
    low = min(0.0, *(value for _, value in points))
    high = top * 1.1 if top > 0 else low + 1.0
    longest = max(seconds for seconds, _ in points) or 1.0
    x = Scale(0.0, longest, left + _LEFT, left + _RIGHT)
    y = Scale(low, high, above + _BOTTOM, above + _TOP)
    unit = f" in {frame.unit}" if frame.unit else ""
    shapes: list[Shape] = [
        Label(left + _LEFT, above + 20, f"{frame.title}{unit}", 14, bold=True, colour=_INK),
        Label(left + _RIGHT, above + 20, frame.verdict, 13, "end", _GREY),
    ]
    for value in ticks(low, high, 3):
        shapes.append(Line(((left + _LEFT, y(value)), (left + _RIGHT, y(value))), _GRID))
        shapes.append(Label(left + _LEFT - 8, y(value) + 4, f"{value:g}", 12, "end", _GREY))
    shapes.append(Label(left + _RIGHT, above + _BOTTOM + 18, _span(longest), 12, "end", _GREY))
    shapes += _series(frame.a, x, y, _A, ())
    return shapes + _series(frame.b, x, y, _B, _DASH)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _series(
    values: Values, x: Scale, y: Scale, colour: str, dash: tuple[float, ...]
) -> list[Shape]:
    points: tuple[Point, ...] = tuple((x(seconds), y(value)) for seconds, value in values)
    half = _DOT / 2
    dots = [Box(at_x - half, at_y - half, _DOT, _DOT, colour) for at_x, at_y in points]
    return [*([Line(points, colour, 2.0, dash)] if len(points) > 1 else []), *dots]
