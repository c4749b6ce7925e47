# SPDX-License-Identifier: Apache-2.0
"""What a drawing is made of. Pixels from the top left; colours as ``#rrggbb``. Pure."""

from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Area:
    """A filled outline that closes itself; ``opacity`` from 0 to 1."""

    points: tuple[Point, ...]
    colour: str
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """Straight pieces from point to point; ``dash`` is how long on and off, () for a whole line."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """One line of text; ``y`` is its baseline. Turned, it is read from below."""

    x: float
    y: float
    text: str
    size: int = 13
    anchor: Literal["start", "middle", "end"] = "start"
    colour: str = "#333333"
    bold: bool = False
    turned: bool = False


Shape = Box | Area | Line | Label


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on white, the first lowest."""

    width: int
    height: int
    title: str
    shapes: tuple[Shape, ...]
