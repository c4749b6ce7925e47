# SPDX-License-Identifier: Apache-2.0
"""Figures as one line of characters. Pure."""

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-:=+*#"  # for a terminal or a file that can't show blocks


def sparkline(values: Sequence[float | None], encoding: str | None) -> str:
    """The values between their own lowest and highest; a blank where one is unknown.

    :param encoding: of where it will be written.
    """
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    return scaled(values, min(known), max(known), levels_for(encoding))


def scaled(values: Sequence[float | None], low: float, high: float, levels: str) -> str:
    """Each value as one of the levels between two fixed ones; a blank where one is unknown."""
    return "".join(
        " " if value is None else levels[_level(value - low, high - low, len(levels))]
        for value in values
    )


def levels_for(encoding: str | None) -> str:
    """The characters to draw with, where text of this encoding is written."""
    return BLOCKS if can_be_written(BLOCKS, encoding) else ASCII_LEVELS


def _level(above: float, span: float, levels: int) -> int:
    """Which of the levels; the lowest where all values are the same."""
    return max(0, min(int(above / span * levels), levels - 1)) if span > 0 else 0


def can_be_written(characters: str, encoding: str | None) -> bool:
    """Whether an encoding has them."""
    try:
        characters.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
