# SPDX-License-Identifier: Apache-2.0
"""The workers' memory on the cards over time, as shapes: a frame for each worker. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise

from gpuwarden.chart.scale import Scale, ticks, time_ticks
from gpuwarden.chart.shapes import Area, Box, Drawing, Label, Line, Point, Shape
from gpuwarden.text import one_line

WIDTH, FRAME_HEIGHT = 1200, 300
_LEFT, _RIGHT = 74, 1106
_TOP, _BOTTOM = 64, 250  # of a frame
_GAP_SECONDS = 20  # four reports: no line is drawn across a longer silence
_GIB = 2**30
_INK, _GREY, _GRID = "#222222", "#666666", "#e4e4e4"
_RESERVED, _ALLOCATED, _WARNING = "#8fb4d9", "#1b5fad", "#c77700"


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One worker's past; sizes in bytes, None where unknown.

    :ivar seconds: since 1970, in order.
    """

    title: str
    seconds: Sequence[int]
    reserved: Sequence[int | None]
    allocated: Sequence[int | None]
    warning_bytes: float | None = None
    zone: tzinfo | None = None


def memory_drawing(records: Sequence[MemoryRecord]) -> Drawing:
    """A frame below the other; says so where nothing is known."""
    height = FRAME_HEIGHT * max(len(records), 1)
    shapes: list[Shape] = [Box(0, 0, WIDTH, height, "#ffffff")]
    if not records:
        text = "no worker has told anything of its memory"
        shapes.append(Label(WIDTH / 2, height / 2, text, 16, "middle", _GREY))
    for place, record in enumerate(records):
        shapes += _frame(record, place * FRAME_HEIGHT)
    return Drawing(WIDTH, height, "workers' memory", tuple(shapes))


def _frame(record: MemoryRecord, above: float) -> list[Shape]:
    shapes: list[Shape] = [
        Label(_LEFT, above + 40, one_line(record.title)[:110], 18, bold=True, colour=_INK)
    ]
    known = [value for value in (*record.reserved, *record.allocated) if value is not None]
    if not record.seconds or not known:
        middle = above + FRAME_HEIGHT / 2
        return [*shapes, Label(WIDTH / 2, middle, "nothing is recorded yet", 16, "middle", _GREY)]
    x = Scale(record.seconds[0], max(record.seconds[-1], record.seconds[0] + 1), _LEFT, _RIGHT)
    top = max(*known, record.warning_bytes or 0, 1) * 1.05 / _GIB
    y = Scale(0, top, above + _BOTTOM, above + _TOP)
    for value in ticks(0, top, 4):
        at = y(value)
        shapes.append(Line(((_LEFT, at), (_RIGHT, at)), _GRID))
        shapes.append(Label(_LEFT - 8, at + 4, f"{value:g}", 13, "end", _GREY))
    shapes += _areas(record.seconds, record.reserved, x, y, _RESERVED)
    shapes += _areas(record.seconds, record.allocated, x, y, _ALLOCATED)
    if record.warning_bytes is not None:
        at = y(record.warning_bytes / _GIB)
        shapes.append(Line(((_LEFT, at), (_RIGHT, at)), _WARNING, 1.6, (9.0, 5.0)))
        shapes.append(Label(_RIGHT + 6, at + 4, "warning", 12, colour=_WARNING))
    shapes.append(Label(24, above + 157, "GiB", 14, "middle", _INK, turned=True))
    for moment, written in time_ticks(x.low, x.high, 10, record.zone):
        shapes.append(Label(x(moment), above + _BOTTOM + 20, written, 13, "middle", _GREY))
    return shapes + _legend(above)


def _areas(
    seconds: Sequence[int], values: Sequence[int | None], x: Scale, y: Scale, colour: str
) -> list[Shape]:
    """What is below the values, in a new piece after each gap."""
    pieces: list[list[Point]] = [[]]
    for (before, second), value in zip(pairwise((seconds[0], *seconds)), values, strict=True):
        if (value is None or second - before > _GAP_SECONDS) and pieces[-1]:
            pieces.append([])
        if value is not None:
            pieces[-1].append((x(second), y(value / _GIB)))
    return [
        Area((*piece, (piece[-1][0], y.at_low), (piece[0][0], y.at_low)), colour, 0.8)
        if len(piece) > 1
        else Box(piece[0][0] - 1.5, piece[0][1], 3, y.at_low - piece[0][1], colour)
        for piece in pieces
        if piece
    ]


def _legend(above: float) -> list[Shape]:
    shapes: list[Shape] = []
    for x, name, colour in ((760, "in use", _ALLOCATED), (860, "held, not in use", _RESERVED)):
        shapes.append(Box(x, above + 30, 24, 12, colour))
        shapes.append(Label(x + 31, above + 41, name, 13, colour=_INK))
    return shapes
