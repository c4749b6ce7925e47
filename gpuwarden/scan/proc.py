# SPDX-License-Identifier: Apache-2.0
"""Reads /proc, where anything may end between two looks: what is gone reads as empty.

Links are read, never followed: to follow one into a network disk that is away would hang.
"""

from pathlib import Path

PROC = Path("/proc")


def text_of(file: Path) -> str:
    """What the file says; empty where it is gone, or is none of ours to look into."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def link_of(path: Path) -> str:
    """Where the link points; empty where it is gone, or is none of ours to look into."""
    try:
        return str(path.readlink())
    except OSError:
        return ""


def names_in(folder: Path) -> list[str]:
    """What is in the folder; nothing where it is gone, or is none of ours to look into."""
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def letter_of(stat: str) -> str:
    """The state's letter of a line of /proc/PID/stat; the name before it may hold brackets."""
    return stat.rpartition(")")[2][1:2]
