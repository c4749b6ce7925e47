# SPDX-License-Identifier: Apache-2.0
"""Plain text for people: aligned ASCII tables, durations, sizes, colour on a terminal only."""

import os
import shutil
import sys
import time
from collections.abc import Sequence

from gpuwarden.text import one_line

UNKNOWN = "-"
_COLOURS = {"good": "32", "warn": "33", "bad": "31", "strong": "1"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines with every column as wide as its widest cell; columns of numbers to the right."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [list(header), *cells]) for n in range(len(header))]
    numeric = [all(_is_number(row[n]) for row in cells) for n in range(len(header))]
    lines = []
    for row in [list(header), *cells]:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        lines.append(f"{indent}{'  '.join(aligned)}".rstrip())
    return lines


def _is_number(cell: str) -> bool:
    return cell == UNKNOWN or cell[:1].isdigit()


def fitted(line: str) -> str:
    """The line without anything that repaints a terminal; cut to its width where there is one."""
    line = one_line(line)
    if not sys.stdout.isatty():
        return line
    columns = shutil.get_terminal_size().columns
    return line if len(line) <= columns else f"{line[: columns - 1]}>"


def coloured(text: str, kind: str) -> str:
    """The text as ``good``, ``warn``, ``bad``, ``strong`` or "" (plain); plain off a terminal."""
    if not kind:
        return text
    wanted = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if not wanted or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m"


def warn(text: str) -> None:
    """Say something beside the answer proper: on stderr, so that JSON stays JSON."""
    if text:
        print(f"gpuwarden: {one_line(text)}", file=sys.stderr)


def unix_now() -> float:
    """Seconds since 1970, as the states' ``since`` counts."""
    return time.time()


def duration(seconds: float) -> str:
    """Two digits are enough: ``12 s``, ``5 min``, ``3 h``, ``2 d``."""
    for limit, unit_seconds, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, int(seconds // unit_seconds))} {unit}"
    return f"{int(seconds // 86400)} d"


def number(value: float | None, unit: str = "") -> str:
    """A rounded number with its unit, or ``-`` where it is unknown."""
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


def gibibytes(value: int | None) -> str:
    """A memory size with one decimal, without unit."""
    return UNKNOWN if value is None else f"{value / 2**30:.1f}"


def of(used: str, total: str) -> str:
    """``3/80``; ``-`` where both are unknown."""
    return UNKNOWN if used == total == UNKNOWN else f"{used}/{total}"
