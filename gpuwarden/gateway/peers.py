# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of the worker channel: told by the kernel, not by the peer."""

import os
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
WORKER_CGROUP = re.compile(r"/medgemma-worker@(0|[1-9][0-9]{0,3})\.service(?:/|$)")
START_TIME_FIELD = 22  # proc(5), /proc/PID/stat


@dataclass(frozen=True)
class Peer:
    """A recognised worker process.

    :param number: which worker it is; None where only its own word tells (development).
    :param start_time: clock ticks since boot when it started: with the pid, its identity.
    """

    number: int | None
    pid: int
    start_time: int


class UnknownPeerError(Exception):
    """The peer is no worker; the text says what it is."""


PeerIdentity = Callable[[socket.socket], Peer]


def worker_of_unit(connection: socket.socket) -> Peer:
    """The worker whose unit holds the peer. Raises UnknownPeerError for anybody else."""
    pid, uid, _ = credentials(connection)
    try:
        before = start_time(pid)
        cgroup = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
        after = start_time(pid)
    except OSError as error:
        raise UnknownPeerError(f"pid {pid} (uid {uid}) can't be looked at: {error}") from error
    if before != after:
        raise UnknownPeerError(f"pid {pid} (uid {uid}) is gone")
    number = worker_number(cgroup)
    if number is None:
        raise UnknownPeerError(f"pid {pid} (uid {uid}) runs in no medgemma-worker@ unit")
    return Peer(number, pid, after)


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


def worker_number(cgroup: str) -> int | None:
    """Which worker's unit a ``/proc/PID/cgroup`` file names (the unified hierarchy's line)."""
    for line in cgroup.splitlines():
        if line.startswith("0::") and (match := WORKER_CGROUP.search(line)):
            return int(match[1])
    return None


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot. Raises OSError if there is none."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return int(stat.rpartition(")")[2].split()[START_TIME_FIELD - 3])
