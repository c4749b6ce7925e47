# SPDX-License-Identifier: Apache-2.0
"""From a text that is no TOML to words, and to the text without what is at fault."""

import re
from pathlib import Path

from gpuwarden.config.positions import KeyPath, Statement, key_lines, statements
from gpuwarden.config.problems import Problem, quoted, shown_key

_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_TOO_MANY_DIGITS = re.compile(r"[0-9_]{4300}")  # where Python stops reading a decimal number
_BEGINS_OF_SEVERAL_LINES = ('"""', "'''", "[")
_HEADER = re.compile(r"\[\[?[ \t]*(?P<name>[A-Za-z0-9_.-]+)[ \t]*\]")
_PAIR = re.compile(r"(?P<key>[A-Za-z0-9_.-]+)[ \t]*=[ \t]*(?P<value>.*)")
_BARE_WORD = re.compile(r"[A-Za-z/~.][^\"'#]*")


def explain_syntax(file: Path, text: str, error: ValueError) -> tuple[Problem, str]:
    """The problem, and the text without what caused it, so that the rest can be checked too.

    A faulty statement on one line is blanked; with a faulty table header go the keys under it,
    which would land in the table above. Nothing after a faulty statement of several lines is
    looked at, because where it should have ended is anybody's guess. What is left is always less.

    :param error: what ``tomllib.loads(text)`` raised.
    """
    lines = text.split("\n")
    message, error_line = _message_and_line(text, error)
    before = [each for each in statements(text) if each.line <= error_line]
    begin = before[-1] if before else Statement(1, ())
    statement = lines[begin.line - 1].strip(" \t").removesuffix("\r")
    several = any(mark in statement for mark in _BEGINS_OF_SEVERAL_LINES)
    goes_on = error_line > begin.line and several
    path = _path(statement, begin.table)
    earlier = "\n".join(lines[: begin.line - 1])
    found, allowed, hint = _explain(statement, message, path, earlier)
    if goes_on:
        found += ", so the rest of the file was not checked"
    problem = Problem(file, begin.line, shown_key(path), found, allowed, hint)
    last = len(lines) if goes_on else begin.line
    if statement.startswith("["):
        while last < len(lines) and not lines[last].lstrip().startswith("["):
            last += 1
    blanks = [""] * (last - begin.line + 1)
    rest = "\n".join([*lines[: begin.line - 1], *blanks, *lines[last:]])
    return problem, rest if rest != text else earlier


def _message_and_line(text: str, error: ValueError) -> tuple[str, int]:
    match = _PLACE.search(str(error))
    if match is None:  # Python's limit on digits tells no place
        digits = _TOO_MANY_DIGITS.search(text)
        end = digits.start() if digits else len(text)
        return "too many digits", text.count("\n", 0, end) + 1
    line = int(match["line"]) if match["line"] else text.count("\n") + 1
    return str(error)[: match.start()], line


def _path(statement: str, table: KeyPath) -> KeyPath:
    """The key that the statement means to set, as far as it can be told."""
    header = _HEADER.match(statement)
    if header:
        return tuple(header["name"].split("."))
    pair = _PAIR.match(statement)
    return (*table, *pair["key"].split(".")) if pair else table


def _explain(statement: str, message: str, path: KeyPath, earlier: str) -> tuple[str, str, str]:
    """(found, allowed, hint) of a faulty statement."""
    shown = quoted(statement)
    if message.startswith(("Cannot declare", "Cannot overwrite")):
        line = key_lines(earlier).get(path)
        hint = f"it is on line {line} already" if line else ""
        allowed = "each table once, and each key once in its table"
        return f"{shown} a second time", allowed, hint
    allowed = 'TOML: [table], key = 1, key = "text" or key = ["a", "b"]'
    pair = _PAIR.match(statement)
    hint = ""
    if pair and _BARE_WORD.fullmatch(pair["value"]):
        word = pair["value"].strip()
        lower = word.lower()
        is_boolean = lower in {"true", "false"}
        hint = f"did you mean {lower}?" if is_boolean else f"text needs quotes: {quoted(word)}"
    return f"{shown} ({message})", allowed, hint
