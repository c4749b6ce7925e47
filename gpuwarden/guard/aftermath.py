# SPDX-License-Identifier: Apache-2.0
"""Looks, after a worker's end, whether its processes are gone and its card's memory is back."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable

from gpuwarden.control.snapshot import boottime_nanoseconds
from gpuwarden.guard.kernel import Process, processes, survivors
from gpuwarden.guard.published import card_holders, memory_in_use
from gpuwarden.guard.remains import Life, Remains

LOOK_SECONDS = 0.1
GONE_SECONDS = 5.0  # for processes that were killed to leave the kernel
# A thermal guard reads the memory once a second and publishes once a second: a figure of later
# than this was read after the end.
READ_AFTER_SECONDS = 2.5
BACK_SECONDS = 8.0  # for the driver to take back what a process held


async def look_after(life: Life, is_down: Callable[[Life], bool]) -> Remains:
    """What is left of a life that has ended just now; returns as soon as that is known.

    :param is_down: asked at each look: no next life is known to have begun, so nothing is to be in
        its control group either.
    """
    ended_at = boottime_nanoseconds()
    left = await _processes_left(life, is_down)
    used = await _memory_used(life, ended_at)
    return Remains(life, left, used, card_holders(life.gpu_index) or ())


def kill(left: Iterable[Process]) -> None:
    """End processes at once; none but these: a number that is another's by now is left alone."""
    for process in left:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:
            if survivors([process]):  # asked after the descriptor holds whoever has the number
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)


def _left_of(life: Life, is_down: Callable[[Life], bool]) -> tuple[Process, ...]:
    """Those that were seen in its life, and those in its group that came and were never seen."""
    seen = survivors(life.processes)
    unseen = processes(life.control_group) if is_down(life) else ()
    return tuple(sorted({*seen, *unseen}, key=lambda process: process.pid))


async def _processes_left(life: Life, is_down: Callable[[Life], bool]) -> tuple[Process, ...]:
    until = time.monotonic() + GONE_SECONDS
    left = _left_of(life, is_down)
    while left and time.monotonic() < until:
        await asyncio.sleep(LOOK_SECONDS)
        left = _left_of(life, is_down)
    return left


async def _memory_used(life: Life, ended_at_nanoseconds: int) -> int | None:
    """The least that was in use after the end: a next life takes its own soon."""
    least: int | None = None
    until = time.monotonic() + BACK_SECONDS
    while time.monotonic() < until:
        used, at_nanoseconds = memory_in_use(life.gpu_index)
        age_seconds = (at_nanoseconds - ended_at_nanoseconds) / 1e9
        if used is not None and age_seconds > 0:
            least = used if least is None else min(least, used)
            so_far = Remains(life, used_bytes=least)
            if life.held_bytes and not so_far.missing_bytes:
                return least
            if not life.held_bytes and age_seconds >= READ_AFTER_SECONDS:
                return least
        await asyncio.sleep(LOOK_SECONDS)
    return least
