# SPDX-License-Identifier: Apache-2.0
"""One configuration file: its bytes, its text, its tables, and what keeps them from being read."""

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwarden.config.positions import KeyPath, key_lines
from gpuwarden.config.problems import Problem
from gpuwarden.config.syntax import explain_syntax

FILE_LIMIT_BYTES = 2**20  # a configuration is a few KiB; more is some other file
SYNTAX_ERRORS_LIMIT = 20  # of one file; what follows is most likely not TOML at all

_LINE_ENDS = re.compile(r"\r+\n")
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Source:
    """What could be read of one file.

    :param tables: what the readable statements say; of a faulty file, those before and after.
    :param lines: the line of each key in ``tables``.
    """

    file: Path
    tables: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line_of(self, path: KeyPath) -> int | None:
        """The line of the key, or of the nearest thing around it that has one."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def read_source(file: Path) -> Source:
    """Read and parse one file. Never raises for what the file is or holds: see ``problems``."""
    try:
        text = _read_text(file)
    except _UnreadableError as error:
        problem = Problem(file, error.line, "", error.found, error.allowed)
        return Source(file, problems=(problem,))
    problems: list[Problem] = []
    while True:
        try:
            return Source(file, tomllib.loads(text), key_lines(text), tuple(problems))
        except RecursionError:
            found, allowed = "lists or tables nested too deeply", "a few levels, as in the manual"
            return Source(file, problems=(*problems, Problem(file, None, "", found, allowed)))
        except ValueError as error:  # TOMLDecodeError, or Python's own limit on a number's digits
            problem, text = explain_syntax(file, text, error)
            problems.append(problem)
            if len(problems) >= SYNTAX_ERRORS_LIMIT:
                return Source(file, problems=tuple(problems))


class _UnreadableError(Exception):
    def __init__(self, line: int | None, found: str, allowed: str) -> None:
        super().__init__(found)
        self.line, self.found, self.allowed = line, found, allowed


def _read_text(file: Path) -> str:
    content = _read_bytes(file)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _UnreadableError(1, "UTF-16 text", "UTF-8 text (save it so in the editor)")
    if content.startswith(b"\xef\xbb\xbf"):
        raise _UnreadableError(1, "a byte order mark", "UTF-8 without one (save it so)")
    try:
        # As tomllib does first; all of them, or it would find more where we have looked already.
        return _LINE_ENDS.sub("\n", content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x}, which is not UTF-8"
        raise _UnreadableError(line, found, "UTF-8 text (save it so in the editor)") from None


def _read_bytes(file: Path) -> bytes:
    regular = "a readable, regular file"
    try:
        # Not blocking: opening a named pipe would wait for its writer for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
                raise _UnreadableError(None, kind, regular)
            content = stream.read(FILE_LIMIT_BYTES + 1)
    except IsADirectoryError:
        raise _UnreadableError(None, "a directory", regular) from None
    except OSError as error:
        raise _UnreadableError(None, f"an error: {error.strerror}", regular) from None
    if len(content) > FILE_LIMIT_BYTES:
        raise _UnreadableError(None, "more than 1 MiB", "a configuration file of up to 1 MiB")
    return content
