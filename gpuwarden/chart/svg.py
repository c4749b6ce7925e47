# SPDX-License-Identifier: Apache-2.0
"""A drawing as SVG. Pure."""

from xml.sax.saxutils import escape, quoteattr

from gpuwarden.chart.shapes import Area, Box, Drawing, Label, Line, Point, Shape
from gpuwarden.text import one_line

_FONT = "DejaVu Sans, Helvetica, Arial, sans-serif"


def svg(drawing: Drawing) -> str:
    """A whole SVG document; nothing in it refers to anything outside."""
    width, height = drawing.width, drawing.height
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="{_FONT}">',
            f"<title>{_text(drawing.title)}</title>",
            *(_element(shape) for shape in drawing.shapes),
            "</svg>\n",
        ]
    )


def _element(shape: Shape) -> str:
    match shape:
        case Box():
            return (
                f'<rect x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" '
                f'height="{_n(shape.height)}" fill="{shape.colour}"/>'
            )
        case Area():
            return (
                f'<polygon points="{_points(shape.points)}" fill="{shape.colour}" '
                f'fill-opacity="{_n(shape.opacity)}"/>'
            )
        case Line():
            dash = " ".join(_n(each) for each in shape.dash)
            dashed = f' stroke-dasharray="{dash}"' if dash else ""
            return (
                f'<polyline points="{_points(shape.points)}" fill="none" '
                f'stroke="{shape.colour}" stroke-width="{_n(shape.width)}" '
                f'stroke-linejoin="round"{dashed}/>'
            )
        case Label():
            return _label(shape)


def _label(label: Label) -> str:
    x, y = _n(label.x), _n(label.y)
    weight = ' font-weight="bold"' if label.bold else ""
    turn = f' transform="rotate(-90 {x} {y})"' if label.turned else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{label.size}" text-anchor={quoteattr(label.anchor)} '
        f'fill="{label.colour}"{weight}{turn}>{_text(label.text)}</text>'
    )


def _points(points: tuple[Point, ...]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    """XML has no way to write a control character, so those are spelled out."""
    return escape(one_line(text))
