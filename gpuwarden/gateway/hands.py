# SPDX-License-Identifier: Apache-2.0
"""Threads that read large bodies out of their sockets, while the loop's is there for all others.

The kernel copies 32 MiB in 6 to 10 ms, in which Python's lock is free. On the loop's thread that is
time that nobody else has, and one upload waits for the other: at 32 callers with 32 MiB each, and
their streams, one thread was the most that a node could do.
"""

import contextlib
import ctypes
import os
import select
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

HANDS = max(2, min(4, len(os.sched_getaffinity(0)) // 2))  # more would wait for memory
PIECE_BYTES = 4 << 20
# Woken for less, a fast sender's reader takes a tenth more CPU and is no sooner done.
LEAST_BYTES = 512 << 10
PATIENCE_MILLISECONDS = 10  # for that much: else the loop takes it back, and waits without a thread
_libc = ctypes.CDLL(None)
_libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)


def new_hands() -> ThreadPoolExecutor:
    """Threads that begin once there is something to do."""
    return ThreadPoolExecutor(HANDS, "hands")


def read_on(connection: socket.socket, target: memoryview, is_wanted: Callable[[], bool]) -> int:
    """Fill the target as long as its sender keeps up; how much of it was filled.

    An end or an error of the connection is left for whoever reads from it next.

    :param connection: it doesn't block; it is this function's own and closed here.
    :param is_wanted: asked before each piece; nothing is written any more once it has said no.
    """
    filled = 0
    # Of an error the connection's own reader is told, too.
    with connection, contextlib.suppress(OSError):
        waiting = select.poll()
        waiting.register(connection, select.POLLIN)
        while filled < len(target) and is_wanted():
            try:
                count = connection.recv_into(target[filled : filled + PIECE_BYTES])
            except BlockingIOError:
                wake_for(connection, min(LEAST_BYTES, len(target) - filled))
                if not waiting.poll(PATIENCE_MILLISECONDS):
                    break
                continue
            if not count:
                break
            filled += count
        wake_for(connection, 1)
    return filled


def wake_for(connection: socket.socket, least_bytes: int) -> None:
    """Who waits for the connection, here or elsewhere, is to be woken for so much, or its end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least_bytes)


def zero(view: memoryview) -> None:
    """Overwrite memory, without Python's lock."""
    if len(view):
        start = ctypes.c_char.from_buffer(view)  # it holds the mapping until this is through
        _libc.memset(ctypes.addressof(start), 0, len(view))
