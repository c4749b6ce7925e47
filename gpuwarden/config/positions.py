# SPDX-License-Identifier: Apache-2.0
"""On which line of a TOML text each key and list element stands.

``tomllib`` parses and checks, but keeps no positions. This scanner walks a text that ``tomllib``
has **already accepted**, so it need not refuse anything: it only finds where keys begin and values
end. Tests hold it against ``tomllib`` on generated documents.
"""

import re
import tomllib
from typing import NamedTuple

NESTING_LIMIT = 100  # ours needs 4; far below what Python's own stack allows

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]|\r\n|#[^\n]*)*")
_KEY_PART = re.compile(
    r"""[ \t]*(?:(?P<bare>[A-Za-z0-9_-]+)|(?P<quoted>"(?:\\.|[^"\\])*"|'[^']*'))"""
)
_KEY_DOT = re.compile(r"[ \t]*\.")
_STRING = re.compile(
    r'"""(?:\\.|"{1,2}(?!")|[^"\\])*"""(?:"{1,2})?'
    r"|'''(?:'{1,2}(?!')|[^'])*'''(?:'{1,2})?"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_BARE_VALUE = re.compile(r"[^,\[\]{}#\r\n]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each table, key and list element of a text that ``tomllib`` accepts.

    A table written in several places has the line of its own header, else of its first mention.

    :raises RecursionError: nested deeper than NESTING_LIMIT. ``tomllib`` raises it too, for lists
        and inline tables, but takes dotted keys of any depth, which other code then chokes on.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class Statement(NamedTuple):
    """A table header or ``key = value``: the line it begins on, and the table it stands in."""

    line: int
    table: KeyPath


def statements(text: str) -> list[Statement]:
    """The statements of a refused text: exact up to the faulty one, then a guess."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (
        ValueError,
        IndexError,
        RecursionError,
    ):  # where the walk ends, the faulty statement has begun
        return scanner.statements
    return scanner.statements


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[KeyPath, int] = {}
        self.statements: list[Statement] = []
        self._counted_to = 0
        self._line = 1
        self._list_lengths: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        self._skip_blank()
        while self.position < len(self.text):
            self.statements.append(Statement(self._line_here(), table))
            if self.text[self.position] == "[":
                table = self._header()
            else:
                self._key_and_value(table)
            end_line = self._line_here()
            self._skip_blank()
            if self.position < len(self.text) and self._line_here() == end_line:
                raise ValueError(f"line {end_line}: a second statement on one line")

    def _header(self) -> KeyPath:
        line = self._line_here()
        is_list = self.text.startswith("[[", self.position)
        self.position += 2 if is_list else 1
        *parents, last = self._key()
        self.position = self.text.index("]", self.position) + (2 if is_list else 1)
        path: KeyPath = ()
        for part in parents:
            path = self._into((*path, part), line)
        path = (*path, last)
        if not is_list:
            self.lines[path] = line
            return path
        self.lines.setdefault(path, line)
        index = self._list_lengths.get(path, 0)
        self._list_lengths[path] = index + 1
        self.lines[*path, index] = line
        return (*path, index)

    def _into(self, path: KeyPath, line: int) -> KeyPath:
        """Mention a parent table; where it is a list of tables, its last element is meant."""
        self.lines.setdefault(path, line)
        length = self._list_lengths.get(path)
        return path if length is None else (*path, length - 1)

    def _key_and_value(self, table: KeyPath) -> None:
        line = self._line_here()
        path = table
        for part in self._key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.position = self.text.index("=", self.position) + 1
        self._value(path)

    def _key(self) -> list[str]:
        parts = []
        while True:
            match = self._expect(_KEY_PART)
            quoted = match["quoted"]
            parts.append(match["bare"] if quoted is None else tomllib.loads(f"k={quoted}")["k"])
            if len(parts) > NESTING_LIMIT:
                raise RecursionError("a key of too many parts")
            dot = _KEY_DOT.match(self.text, self.position)
            if dot is None:
                return parts
            self.position = dot.end()

    def _value(self, path: KeyPath) -> None:
        if len(path) > NESTING_LIMIT:
            raise RecursionError("values nested too deeply")
        self._skip_blank()
        start = self.text[self.position]
        if start == "[":
            self._list(path)
        elif start == "{":
            self._inline_table(path)
        else:
            self._expect(_STRING if start in "\"'" else _BARE_VALUE)

    def _list(self, path: KeyPath) -> None:
        self.position += 1
        index = 0
        while not self._closed_by("]"):
            self.lines[*path, index] = self._line_here()
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self.position += 1
        while not self._closed_by("}"):
            self._key_and_value(path)

    def _closed_by(self, bracket: str) -> bool:
        """Step over blanks and a comma; over the closing bracket too if it is next."""
        self._skip_blank()
        if self.text[self.position] == ",":
            self.position += 1
            self._skip_blank()
        closed = self.text[self.position] == bracket
        self.position += closed
        return closed

    def _skip_blank(self) -> None:
        self._expect(_BLANK)

    def _expect(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.position)
        if match is None:  # only for a text that tomllib refuses: a fault of the caller
            raise ValueError(f"line {self._line_here()}: not TOML")
        self.position = match.end()
        return match

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted_to, self.position)
        self._counted_to = self.position
        return self._line
