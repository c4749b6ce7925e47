# SPDX-License-Identifier: Apache-2.0
"""A drawing as PNG, through Pillow, which is loaded only here and only when asked for."""

import io
from itertools import pairwise
from typing import TYPE_CHECKING

from gpuwarden.chart.shapes import Area, Box, Drawing, Label, Line, Point

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Drawn so much larger and then made smaller: Pillow draws edges without smoothing them.
_FINER = 3
# Where Debian's fonts-dejavu-core puts them; without it Pillow's own font does, if less well.
_FONTS = {
    False: "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    True: "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
}


def png(drawing: Drawing) -> bytes:
    """A whole PNG file.

    :raises ImportError: Pillow is not installed.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - only whoever wants a PNG needs it

    size = (drawing.width, drawing.height)
    image = Image.new("RGB", (size[0] * _FINER, size[1] * _FINER), "white")
    for shape in drawing.shapes:
        match shape:
            case Box():
                _box(ImageDraw.Draw(image), shape)
            case Area():
                _area(image, shape)
            case Line():
                _line(ImageDraw.Draw(image), shape)
            case Label():
                pass
    image = image.resize(size, Image.Resampling.LANCZOS)
    # Last and in their own size, since a font without sizes can't be drawn larger.
    for shape in drawing.shapes:
        if isinstance(shape, Label):
            _label(image, shape)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _box(draw: "ImageDraw.ImageDraw", box: Box) -> None:
    if box.width <= 0 or box.height <= 0:
        return
    right, bottom = box.x + box.width, box.y + box.height
    # Pillow counts the last pixel in.
    corners = (box.x * _FINER, box.y * _FINER, right * _FINER - 1, bottom * _FINER - 1)
    if corners[2] >= corners[0] and corners[3] >= corners[1]:
        draw.rectangle(corners, fill=box.colour)


def _area(image: "Image.Image", area: Area) -> None:
    from PIL import Image, ImageDraw  # noqa: PLC0415

    mask = Image.new("L", image.size, 0)
    points = [(x * _FINER, y * _FINER) for x, y in area.points]
    ImageDraw.Draw(mask).polygon(points, fill=round(area.opacity * 255))
    image.paste(area.colour, (0, 0, *image.size), mask)


def _line(draw: "ImageDraw.ImageDraw", line: Line) -> None:
    width = max(round(line.width * _FINER), 1)
    for piece in _dashes(line):
        points = [(x * _FINER, y * _FINER) for x, y in piece]
        draw.line(points, fill=line.colour, width=width, joint="curve")


def _dashes(line: Line) -> list[tuple[Point, ...]]:
    """The pieces of a dashed line, which Pillow can't draw; the whole of an undashed one."""
    if not line.dash:
        return [line.points]
    on, period = line.dash[0], sum(line.dash)
    pieces: list[tuple[Point, ...]] = []
    for (x0, y0), (x1, y1) in pairwise(line.points):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        for number in range(int(length // period) + 1):
            ends = (number * period, min(number * period + on, length))
            shares = [end / length if length else 0.0 for end in ends]
            pieces.append(tuple((x0 + (x1 - x0) * s, y0 + (y1 - y0) * s) for s in shares))
    return pieces


def _label(image: "Image.Image", label: Label) -> None:
    from PIL import Image, ImageDraw  # noqa: PLC0415

    font, text = _font(label)
    if not text:
        return
    left, top, right, bottom = font.getbbox(text)
    width, height = int(right - left) + 2, int(bottom - top) + 2
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=font)
    # The mask's top over the baseline: the font's ascent, less what stays empty above the text.
    over = _ascent(font) - top + 1
    along = {"start": 0, "middle": width // 2, "end": width}[label.anchor]
    if label.turned:
        mask = mask.transpose(Image.Transpose.ROTATE_90)
        place = (round(label.x - over), round(label.y - width + along))
    else:
        place = (round(label.x - along), round(label.y - over))
    image.paste(label.colour, (*place, place[0] + mask.width, place[1] + mask.height), mask)


def _ascent(font: "Font") -> float:
    metrics = getattr(font, "getmetrics", None)
    return metrics()[0] if metrics else font.getbbox("X")[3]


def _font(label: Label) -> "tuple[Font, str]":
    """The best font there is, and the text in the characters that it has."""
    from PIL import ImageFont  # noqa: PLC0415

    try:
        return ImageFont.truetype(_FONTS[label.bold], label.size), label.text
    except OSError:
        pass
    try:
        font = ImageFont.load_default(label.size)
    except TypeError:  # before Pillow 10.1 (Debian 12): one size, and Latin-1 alone
        font = ImageFont.load_default()
    return font, label.text.encode("latin-1", "replace").decode("latin-1")
