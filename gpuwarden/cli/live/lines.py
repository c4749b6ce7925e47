# SPDX-License-Identifier: Apache-2.0
"""Lines of a screen as values: pieces of text, and how each is painted. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpuwarden.text import one_line

MORE = ">"  # at the end of a line that is cut, as everywhere in this command


@dataclass(frozen=True)
class Size:
    """A terminal's, in characters."""

    columns: int
    rows: int


@dataclass(frozen=True)
class Piece:
    """Some text, and how it is painted: good, warn, bad, strong, or "" for plain."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """One line; ``chosen`` is the one that keys are about."""

    pieces: tuple[Piece, ...] = ()
    chosen: bool = False

    @property
    def text(self) -> str:
        """All of it, plain."""
        return "".join(piece.text for piece in self.pieces)


def line(*pieces: str | tuple[str, str], chosen: bool = False) -> Line:
    """A line of texts and of (text, kind); what would repaint a terminal is escaped."""
    pairs = ((each, "") if isinstance(each, str) else each for each in pieces)
    return Line(tuple(Piece(one_line(text), kind) for text, kind in pairs if text), chosen)


def cut(whole: Line, columns: int) -> Line:
    """The line within so many columns."""
    if len(whole.text) <= columns:
        return whole
    kept: list[Piece] = []
    room = columns - len(MORE)
    for piece in whole.pieces:
        kept.append(replace(piece, text=piece.text[:room]))
        room -= len(kept[-1].text)
        if room <= 0:
            break
    return replace(whole, pieces=(*kept, Piece(MORE)))


def fitting(lines: Sequence[Line], size: Size) -> list[Line]:
    """As many lines as the screen has, none longer than it is wide."""
    shown = [cut(each, size.columns) for each in lines[: size.rows]]
    return shown + [Line()] * (size.rows - len(shown))
