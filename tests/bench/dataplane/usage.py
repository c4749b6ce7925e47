# SPDX-License-Identifier: Apache-2.0
"""What a system's processes have used of the processors, and how they are kept from using any."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# proc(5), /proc/PID/stat, counted from the field after the command
PARENT, USER, SYSTEM, USER_OF_CHILDREN, SYSTEM_OF_CHILDREN = 1, 11, 12, 13, 14


def processes_of(roots: list[int]) -> list[int]:
    """The processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, fields in _stats():
        children.setdefault(int(fields[PARENT]), []).append(pid)
    found = list(roots)
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(roots: list[int]) -> float:
    """What they have used so far, with those of their children that have ended."""
    members = set(processes_of(roots))
    ticks = sum(
        int(fields[place])
        for pid, fields in _stats()
        if pid in members
        for place in (USER, SYSTEM, USER_OF_CHILDREN, SYSTEM_OF_CHILDREN)
    )
    return ticks / TICKS_A_SECOND


def freeze(roots: list[int]) -> None:
    """Have them stand still, so that whoever polls costs the others nothing."""
    _signal_all(roots, signal.SIGSTOP)


def thaw(roots: list[int]) -> None:
    """Let them go on."""
    _signal_all(roots, signal.SIGCONT)


def end(roots: list[int]) -> None:
    """End them, whatever they do."""
    _signal_all(roots, signal.SIGKILL)


def _signal_all(roots: list[int], number: int) -> None:
    for pid in processes_of(roots):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _stats() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()
