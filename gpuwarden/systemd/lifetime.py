# SPDX-License-Identifier: Apache-2.0
"""A service's work from its start to systemd's SIGTERM."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from gpuwarden.systemd.notify import Notifier


async def until_terminated(
    work: Coroutine[Any, Any, None], stop: Callable[[], Awaitable[None]]
) -> None:
    """Do ``work`` until it ends, or until SIGTERM or SIGINT comes: then ``stop``."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        Notifier().stopping()
        await stop()
