# SPDX-License-Identifier: Apache-2.0
"""Pages in the man(7) language, as values. Pure."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LONGEST_LINE = 78  # mandoc's lint wants input lines of at most 80 bytes
_CODE = re.compile(r"`([^`]+)`")
_BLANK = "\\ "  # one that begins a line without being taken for an indentation
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def escaped(text: str) -> str:
    """Text that troff shows as it is; hyphens stay the ones that can be typed again."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")
    text = text.replace("^", "\\(ha").replace("`", "\\(ga").replace("'", "\\(aq")
    return "".join(c if ord(c) < 128 else f"\\[u{ord(c):04X}]" for c in text)


def running(text: str) -> list[str]:
    """Lines of running text; `code` is bold, and of a link only what it is called stays."""
    text = _LINK.sub(r"\1", " ".join(text.split()))
    # Blanks within code must not part it, on the page or in the input.
    parts = _CODE.split(text)
    for n, part in enumerate(parts):
        parts[n] = f"\\fB{escaped(part)}\\fR".replace(" ", "\\~") if n % 2 else escaped(part)
    lines = textwrap.wrap(
        "".join(parts), LONGEST_LINE, break_long_words=False, break_on_hyphens=False
    )
    return [_guarded(line) for line in lines]


def _guarded(line: str) -> str:
    """A line that is no request of troff's, whatever it begins with."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _quoted(text: str) -> str:
    return f'"{escaped(text)}"' if " " in text or not text else escaped(text)


@dataclass
class Page:
    """One manual page, from top to end.

    :ivar date: as ISO has it; it is the release's, so that the same sources give the same page.
    """

    name: str
    section: int
    what: str
    date: str
    version: str
    lines: list[str] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """Such as gpuwarden.1."""
        return f"{self.name}.{self.section}"

    @property
    def text(self) -> str:
        """The file."""
        head = [
            f".TH {_quoted(self.name.upper())} {self.section} {self.date} "
            f'"gpuwarden {self.version}" "gpuwarden"',
            ".nh",  # names that are parted can't be copied
            ".ad l",
            ".SH NAME",
            *textwrap.wrap(
                f"{escaped(self.name)} \\- {escaped(self.what)}",
                LONGEST_LINE,
                break_on_hyphens=False,
            ),
        ]
        return "\n".join([*head, *self.lines]) + "\n"

    def section_of(self, title: str) -> None:
        """A section."""
        is_words = re.fullmatch(r"[A-Z][a-z ]+", title)
        self.lines.append(f".SH {_quoted(title.upper() if is_words else title)}")

    def part(self, title: str) -> None:
        """A part of a section."""
        self.lines.append(f".SS {_quoted(title)}")

    def paragraph(self, text: str) -> None:
        """Running text."""
        if not self.lines[-1].startswith((".SH", ".SS")):
            self.lines.append(".PP")
        self.lines += running(text)

    def item(self, term: str, text: str) -> None:
        """A term, and what it is about."""
        self.lines += [".TP", f"\\fB{escaped(term)}\\fR", *(running(text) or ["\\&"])]

    def bullet(self, text: str) -> None:
        """One of a list."""
        self.lines += [".IP \\(bu 2", *running(text)]

    def verbatim(self, lines: Iterable[str]) -> None:
        """Lines as they are."""
        if not self.lines[-1].startswith((".SH", ".SS")):
            self.lines.append(".PP")
        shown = [_guarded(escaped(line.rstrip())) or "\\&" for line in lines]
        # A long line of a file is one line on the page, but not of the input.
        self.lines += [".nf", *(part for line in shown for part in _input_lines(line)), ".fi"]

    def see_also(self, pages: Sequence[tuple[str, int]]) -> None:
        """Other pages, in the order of their sections and names."""
        self.section_of("See also")
        ordered = sorted(set(pages), key=lambda page: (page[1], page[0]))
        for n, (name, section) in enumerate(ordered):
            comma = " ," if n < len(ordered) - 1 else ""
            self.lines.append(f".BR {escaped(name)} ({section}){comma.strip()}")


def _input_lines(line: str) -> list[str]:
    """A line of output as lines of input; a backslash at the end of one joins it to the next."""
    if len(line) <= LONGEST_LINE:
        return [line]
    place = line.rfind(" ", len(_BLANK) + 1, LONGEST_LINE)
    if place < 0:
        return [line]
    return [f"{line[:place]}\\c", *_input_lines(_BLANK + line[place + 1 :])]
