# SPDX-License-Identifier: Apache-2.0
"""Single processes: who they are by /proc, and their end by pidfd, so that it meets no other.

A number alone names nobody: it is given to another process when the first is gone. With the start
time it does (all numbers would have to be used up within one tick, 10 ms), and a pidfd stays with
the process that it was opened for.
"""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.guard.kernel import PROC

TERM_SECONDS = 5.0  # as everywhere here: the articles' grace before the kill
KILL_SECONDS = 5.0  # a process that is not gone by then hangs in the kernel

# The initial PID namespace's inode, fixed in the kernel's proc_ns.h: in any other one, a number
# that a driver or another namespace names is somebody else's here.
INITIAL_PID_NAMESPACE = 0xEFFFFFFC

_PARENT_FIELDS = 3  # the first field after the name, by proc(5): 3 is the state
_FLAGS, _START_TIME = 9, 22
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of the kernel's sched.h


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for ever: its number and when it started, in clock ticks since boot."""

    pid: int
    start_time_ticks: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it now.

    :ivar state: the kernel's letter: Z is dead and not yet taken leave of, D can't be interrupted.
    """

    identity: Identity
    state: str
    is_kernel_thread: bool
    control_group: str


class SurvivedError(Exception):
    """A process could not be ended; the text says why."""


def in_initial_namespace(namespace: Path = PROC / "self" / "ns" / "pid") -> bool:
    """Whether the numbers that we see are the kernel's own."""
    try:
        return namespace.stat().st_ino == INITIAL_PID_NAMESPACE
    except OSError:
        return False


def read_process(pid: int, root: Path = PROC) -> Process | None:
    """The process of that number; None where there is none, or it can't be looked at."""
    folder = root / str(pid)
    try:
        before = (folder / "stat").read_text(encoding="ascii", errors="replace")
        groups = (folder / "cgroup").read_text(encoding="utf-8", errors="replace")
        after = (folder / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The second field, the name, may hold spaces and brackets; the third follows the last one.
    fields = after.rpartition(")")[2].split()
    if _field(before.rpartition(")")[2].split(), _START_TIME) != _field(fields, _START_TIME):
        return None  # another one by now
    group = next((line[3:] for line in groups.splitlines() if line.startswith("0::")), "")
    return Process(
        Identity(pid, _field(fields, _START_TIME)),
        state=fields[0],
        is_kernel_thread=bool(_field(fields, _FLAGS) & _KERNEL_THREAD),
        control_group=group,
    )


def is_alive(identity: Identity) -> bool:
    """Whether that very process is still there, dead and waited for or not."""
    process = read_process(identity.pid)
    return process is not None and process.identity == identity


async def end_process(identity: Identity) -> bool:
    """SIGTERM, then SIGKILL; returns when the process has ended.

    :return: False where it was gone already, whoever has its number now.
    :raises SurvivedError: it is there for all that, or may not be killed.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise SurvivedError(f"PID {identity.pid} can't be held: {error.strerror}") from error
    try:
        # Now that the descriptor holds whoever has the number, look whether that is the one.
        if not is_alive(identity):
            return False
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            if not _send(descriptor, number, identity.pid) or await _ended(descriptor, seconds):
                return True
    finally:
        os.close(descriptor)
    state = process.state if (process := read_process(identity.pid)) else "?"
    raise SurvivedError(
        f"PID {identity.pid} has not ended {KILL_SECONDS:.0f} s after SIGKILL (state {state}): it "
        "hangs in the kernel, and only a reset of the card or a reboot ends it"
    )


def _send(descriptor: int, number: signal.Signals, pid: int) -> bool:
    """Send a signal; whether there was still somebody to take it."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise SurvivedError(f"PID {pid} may not be sent {number.name}") from error
    return True


async def _ended(descriptor: int, seconds: float) -> bool:
    """Whether the process has ended within that time: its descriptor can be read then."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


def _field(after_name: list[str], number: int) -> int:
    return int(after_name[number - _PARENT_FIELDS])
