# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of the worker channel: told by the kernel, not by the peer."""

import contextlib
import os
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
WORKER_CGROUP = re.compile(
    r"0::(?P<group>(?:/[^/]+)*?/medgemma-worker@(?P<number>0|[1-9][0-9]{0,3})\.service)(?:/|$)"
)
CARD_SLICE = re.compile(r"/medgemma-workers-gpu(?P<card>0|[1-9][0-9]{0,3})[a-z]?\.slice/")
CGROUPS = "sys/fs/cgroup"
START_TIME_FIELD = 22  # proc(5), /proc/PID/stat


@dataclass(frozen=True)
class Peer:
    """A recognised worker process.

    :param number: which worker it is; None where only its own word tells (development).
    :param start_time: clock ticks since boot when it started: with the pid, its identity.
    :param card: whose slice it runs in; None where only its own word tells.
    """

    number: int | None
    pid: int
    start_time: int
    card: int | None = None


@dataclass(frozen=True)
class WorkerUnit:
    """What a worker's cgroup tells: which worker, on which card, and where its processes are."""

    number: int
    card: int | None
    group: str


class UnknownPeerError(Exception):
    """The peer is no worker; the text says what it is."""


PeerIdentity = Callable[[socket.socket], Peer]


def worker_of_unit(connection: socket.socket, root: Path = Path("/")) -> Peer:
    """The worker whose unit's main process the peer is. Raises UnknownPeerError for anybody else.

    :param root: where ``proc`` and ``sys`` are.
    """
    pid, uid, _ = credentials(connection)
    who = f"pid {pid} (uid {uid})"
    try:
        before = start_time(pid, root)
        unit = unit_of((root / f"proc/{pid}/cgroup").read_text(encoding="utf-8"))
        oldest = None if unit is None else first_of(unit, root)
        after = start_time(pid, root)
    except OSError as error:
        raise UnknownPeerError(f"{who} can't be looked at: {error}") from error
    if before != after:
        raise UnknownPeerError(f"{who} is gone")
    if unit is None:
        raise UnknownPeerError(f"{who} runs in no medgemma-worker@ unit")
    if oldest is None or oldest < after:
        raise UnknownPeerError(f"{who} is not the main process of worker {unit.number}")
    return Peer(unit.number, pid, after, unit.card)


def first_of(unit: WorkerUnit, root: Path) -> int | None:
    """When the first of a unit's processes started. Raises OSError where its cgroup is gone.

    That is its main process, from which all others come: worker-launch begins no worker among
    processes of a former life. It becomes the worker, and READY counts from it alone. The order in
    cgroup.procs says nothing, and a process whose parent has ended is a child of PID 1, too. While
    the others of a unit outlive its main process, the oldest of them would pass.
    """
    group = root / CGROUPS / unit.group.lstrip("/")
    listed = (group / "cgroup.procs").read_text(encoding="ascii").split()
    for below in group.glob("*/**/cgroup.procs"):
        listed += below.read_text(encoding="ascii").split()
    started: list[int] = []
    for pid in listed:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            started.append(start_time(int(pid), root))
    return min(started, default=None)


def same_user(connection: socket.socket) -> Peer:
    """For running by hand, without units: any process of our own user, by its own word."""
    pid, uid, _ = credentials(connection)
    if uid != os.geteuid():
        raise UnknownPeerError(f"pid {pid} belongs to uid {uid}, not to {os.geteuid()}")
    return Peer(None, pid, start_time(pid))


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of the peer as the kernel noted them when it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, gid = CREDENTIALS.unpack(raw)
    return pid, uid, gid


def unit_of(cgroup: str) -> WorkerUnit | None:
    """Which worker's unit a ``/proc/PID/cgroup`` file names (the unified hierarchy's line)."""
    for line in cgroup.splitlines():
        if match := WORKER_CGROUP.match(line):
            card = CARD_SLICE.search(match["group"])
            number = int(match["number"])
            return WorkerUnit(number, int(card["card"]) if card else None, match["group"])
    return None


def start_time(pid: int, root: Path = Path("/")) -> int:
    """When a process started, in clock ticks since boot. Raises OSError if there is none."""
    stat = (root / f"proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return int(stat.rpartition(")")[2].split()[START_TIME_FIELD - 3])
