# SPDX-License-Identifier: Apache-2.0
"""Reads files below any root folder; why one can't be read is part of the answer."""

import errno
from enum import Enum
from pathlib import Path

from gpuwarden.cpulist import CpuListError, parse_cpu_list
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question


class Absence(Enum):
    """Why there is no text."""

    MISSING = "there is no such file"
    DENIED = "this user may not read it"


Text = str | Absence
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH})
_DENIED = frozenset({errno.EACCES, errno.EPERM})


def below(root: Path, path: Path | str) -> Path:
    """The place of an absolute ``path`` in the machine that lies below ``root``."""
    return root / str(path).lstrip("/")


def text_of(path: Path) -> Text:
    """The file's text without surrounding white space.

    :raises OSError: it is there and may be read, but the kernel or the disk fails.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        return absence(error)


def absence(error: OSError) -> Absence:
    """What ``error`` means for whoever wanted to read; raises it where it means neither."""
    if error.errno in _MISSING:
        return Absence.MISSING
    if error.errno in _DENIED:
        return Absence.DENIED
    raise error


def unread(question: Question, what: Absence, path: str) -> Finding:
    """The finding for a file that could not be read: unknown, and never more than that."""
    if what is Absence.DENIED:
        return question.unknown(f"{path}: {what.value}", AS_ROOT)
    return question.unknown(f"{path}: {what.value}; a container or another kernel, perhaps")


def cpus_of(text: Text) -> frozenset[int] | Absence:
    """The CPUs (or nodes) of a kernel's list; MISSING for what is no list."""
    if isinstance(text, Absence):
        return text
    try:
        return parse_cpu_list(text)
    except CpuListError:
        return Absence.MISSING


def status_field(status: str, name: str) -> str:
    """One value of a ``name:\\tvalue`` file, as /proc/PID/status is; empty where it is not in."""
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def folders(path: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing where it is not there or closed to this user."""
    try:
        return sorted(path.iterdir())
    except OSError as error:
        absence(error)
        return []
