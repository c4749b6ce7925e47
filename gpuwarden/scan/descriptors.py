# SPDX-License-Identifier: Apache-2.0
"""Who has a card open: for when the driver's lists don't say whose the memory is."""

from collections.abc import Iterable
from pathlib import Path

from gpuwarden.scan.evidence import UNINTERRUPTIBLE
from gpuwarden.scan.proc import PROC, letter_of, link_of, names_in, text_of


def openers(device_file: str, pids: Iterable[int], proc: Path = PROC) -> list[int]:
    """Those of ``pids`` that have ``device_file`` open or mapped."""
    return [pid for pid in pids if _uses(proc / str(pid), device_file)]


def _uses(folder: Path, device_file: str) -> bool:
    """By descriptor, of any thread: those of a first thread that has ended are its siblings'."""
    tasks = names_in(folder / "task")
    opened = (device_file, f"{device_file} (deleted)")
    for task in tasks[:1] + tasks[-1:]:
        descriptors = folder / "task" / task / "fd"
        if any(link_of(descriptors / name) in opened for name in names_in(descriptors)):
            return True
    return any(map_uses(line, device_file) for line in _maps(folder))


def map_uses(line: str, device_file: str) -> bool:
    """Whether a line of /proc/PID/maps is of this file."""
    return line.endswith(f" {device_file}") or line.endswith(f" {device_file} (deleted)")


def _maps(folder: Path) -> list[str]:
    """The mappings; none of a process that may hold their lock for ever."""
    tasks = names_in(folder / "task")
    if UNINTERRUPTIBLE in {letter_of(text_of(folder / "task" / task / "stat")) for task in tasks}:
        return []
    return text_of(folder / "maps").splitlines()
