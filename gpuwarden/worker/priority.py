# SPDX-License-Identifier: Apache-2.0
"""The priority of the thread that drives the card, set by that thread for itself alone.

SCHED_RESET_ON_FORK goes with it, so whatever a library starts from there (threads, processes) is
normal again. Everything else in this worker is and stays normal: a real-time decoder would take
CPUs from the very thread that it feeds.
"""

import logging
import os
import re
import resource
import threading
from pathlib import Path
from typing import Optional

_log = logging.getLogger(__name__)

NORMAL = "normal"
# What is taken where the kernel refuses a real-time policy; the unit's LimitNICE= allows it.
FALLBACK_NICE = -10
_FIFO = re.compile(r"fifo:(?P<priority>[1-9][0-9]?)")
# include/uapi/linux/sched.h; Pythons built on an old C library (conda's) have no name for it.
_RESET_ON_FORK = 0x40000000


def parse_priority(text: str) -> Optional[int]:
    """The real-time priority in ``fifo:N``, None for ``normal``. Raises ValueError otherwise."""
    if text == NORMAL:
        return None
    match = _FIFO.fullmatch(text)
    if match is None:
        raise ValueError(f'"{NORMAL}" or "fifo:1" to "fifo:99"')
    return int(match["priority"])


def name_this_thread(name: str) -> None:
    """Give the calling thread a name in the kernel, where ``ps -L`` and top show it."""
    try:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
    except OSError as error:  # a label less
        _log.warning("the thread %s can't be named: %s", name, error.strerror)


def raise_this_thread(wanted: str) -> str:
    """Give the calling thread the priority ``wanted``, or nice where the kernel refuses it.

    No other thread of this process, and none that it starts, can have one afterwards. Returns what
    is wrong, and what was done instead; an empty text where nothing is.
    """
    try:
        return _raise(wanted)
    finally:
        forgo_priorities()


def forgo_priorities() -> None:
    """Give up for good what the unit's limits allow this process; what it has, it keeps."""
    for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        resource.setrlimit(limit, (0, 0))


def _raise(wanted: str) -> str:
    priority = parse_priority(wanted)
    if priority is None:
        return ""
    try:
        _set_policy(os.SCHED_FIFO, priority)
    except OSError as error:
        refused = f"priority {wanted} of the GPU thread was refused ({error.strerror})"
    else:
        return ""
    try:
        _set_policy(os.SCHED_OTHER, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), FALLBACK_NICE)
    except OSError as error:
        return f"{refused}, and nice {FALLBACK_NICE}, too ({error.strerror}): it runs as all others"
    return f"{refused}: it runs at nice {FALLBACK_NICE} instead"


def _set_policy(policy: int, priority: int) -> None:
    # 0 is the calling thread to the kernel, not the process.
    os.sched_setscheduler(0, policy | _RESET_ON_FORK, os.sched_param(priority))
