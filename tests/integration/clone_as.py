# SPDX-License-Identifier: Apache-2.0
"""The parent of a process with a chosen PID (clone3(2), set_tid), for as long as that lives."""

import ctypes
import os
import signal
import sys

SYS_CLONE3 = 435  # the same on every architecture
TRIES = 1000


class CloneArguments(ctypes.Structure):
    """struct clone_args of the kernel's sched.h, as far as set_tid needs it."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
        )
    )


def clone_as(pid: int) -> int:
    """The new process's number for its parent, 0 for itself, -1 where it can't be had."""
    wanted = (ctypes.c_int * 1)(pid)
    arguments = CloneArguments(
        exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(wanted), set_tid_size=1
    )
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(SYS_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments)))


def main(pid: int) -> int:
    for _ in range(TRIES):  # the number may be another's for a moment
        child = clone_as(pid)
        if child >= 0:
            break
    if child == 0:
        os.execvp("sleep", ["sleep", "600"])
    print(child, flush=True)
    os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
