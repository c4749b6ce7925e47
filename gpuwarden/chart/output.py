# SPDX-License-Identifier: Apache-2.0
"""Drawings as files: the name's ending says which kind."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gpuwarden.chart.png import png
from gpuwarden.chart.shapes import Drawing
from gpuwarden.chart.svg import svg
from gpuwarden.files import write_whole

_WRITERS: Final[Mapping[str, Callable[[Drawing], bytes]]] = {
    ".png": png,
    ".svg": lambda drawing: svg(drawing).encode(),
}
SUFFIXES: Final = tuple(_WRITERS)


class PillowMissingError(Exception):
    """A PNG is wanted where nothing can draw one."""

    def __init__(self) -> None:
        super().__init__("no PNG without Pillow: apt install python3-pil, or write a .svg")


def draw_to_file(drawing: Drawing, path: Path) -> None:
    """Write the drawing in one step; what was there is replaced.

    :raises ValueError: the name ends in none of ``SUFFIXES``.
    :raises PillowMissingError: a PNG, and Pillow is not installed.
    :raises OSError: the file can't be written.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        allowed = " or ".join(SUFFIXES)
        raise ValueError(f"{path}: the name must end in {allowed}")
    try:
        content = writer(drawing)
    except ImportError as error:
        raise PillowMissingError from error
    write_whole(path, content)
