# SPDX-License-Identifier: Apache-2.0
"""Processes of this node by /proc and control groups, and a kill that waits for the end."""

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names

GROUPS = Path("/sys/fs/cgroup") / names.SERVICE_SLICE
PROC = Path("/proc")
LIBRARY = os.fsencode(names.LIBRARY_DIRECTORY) + b"/"
SIMULATOR_UNIT = "gpuwarden-sim.service"
END_SECONDS = 60.0
VANISHED = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Held:
    """What a process holds: open descriptors, memfds among them, threads, anonymous memory."""

    pid: int
    descriptors: int
    memfds: int
    threads: int
    anonymous_kib: int


def processes_by_unit() -> dict[str, list[int]]:
    """Every process below our slice, by the unit in whose group it is."""
    found: dict[str, list[int]] = {}
    for folder, _, _ in os.walk(GROUPS):  # not rglob(): groups vanish under it
        with contextlib.suppress(OSError):
            if pids := [int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split()]:
                found.setdefault(Path(folder).name, []).extend(pids)
    return found


def parent(pid: int) -> int:
    """Its parent; 0 where the process is gone."""
    return int(_stat(pid)[1])


def main_process(pids: list[int]) -> int:
    """The one that systemd has started; 0 where there is none."""
    return next((pid for pid in pids if parent(pid) == 1), 0)


def zombies() -> list[str]:
    """Processes that have ended and that nobody has waited for, our own children apart."""
    pids = [int(folder.name) for folder in PROC.glob("[0-9]*")]
    stats = {pid: _stat(pid) for pid in pids}
    return [
        f"process {pid} is a zombie of {parent_pid}"
        for pid, (state, parent_pid) in stats.items()
        if state == "Z" and int(parent_pid) != os.getpid()
    ]


def strangers() -> list[str]:
    """Processes of our package that are in no unit of ours."""
    found = []
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(*VANISHED):
            group = (folder / "cgroup").read_text()
            ours = LIBRARY in (folder / "cmdline").read_bytes()
            if ours and names.SERVICE_SLICE not in group and SIMULATOR_UNIT not in group:
                found.append(f"process {folder.name} is in {group.strip()}")
    return found


def held(pid: int) -> Held | None:
    """What it holds; None where it is gone."""
    try:
        status = (PROC / str(pid) / "status").read_text()
        links = [link for link, _ in _descriptors(pid)]
    except VANISHED:
        return None
    told = dict(line.split(":", 1) for line in status.splitlines())
    if "RssAnon" not in told:
        return None  # it has ended, and nobody has waited for it yet
    memfds = sum(link.startswith("/memfd:") for link in links)
    return Held(pid, len(links), memfds, int(told["Threads"]), int(told["RssAnon"].split()[0]))


def shared_memory(pids: list[int]) -> tuple[int, int]:
    """How many memfds these processes hold together, and how many bytes these have."""
    sizes: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(*VANISHED):
            for link, status in _descriptors(pid):
                if link.startswith("/memfd:"):
                    sizes[status.st_ino] = status.st_size
    return len(sizes), sum(sizes.values())


def kill(pid: int) -> None:
    """SIGKILL, and return when it has ended. Does nothing where it has ended already."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended, _, _ = select.select([descriptor], [], [], END_SECONDS)
        finally:
            os.close(descriptor)
        if not ended:
            raise TimeoutError(f"process {pid} lives {END_SECONDS:g} s after its SIGKILL")


def _descriptors(pid: int) -> list[tuple[str, os.stat_result]]:
    """What each open descriptor leads to; those are left out that are closed while it looks."""
    found = []
    for entry in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(*VANISHED):
            found.append((str(entry.readlink()), entry.stat()))
    return found


def _stat(pid: int) -> tuple[str, str]:
    """State and parent, as proc(5) writes them."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except VANISHED:
        return "", "0"
    state, parent_pid = text.rpartition(")")[2].split()[:2]
    return state, parent_pid
