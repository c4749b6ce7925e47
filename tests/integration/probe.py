# SPDX-License-Identifier: Apache-2.0
"""What the maltreated service does, whatever library carries it; imports none of ours.

(Importing gpuwarden.bus would cure the stock library's cache in the same process.)
"""

import asyncio
import time

NAME = "org.gpuwarden1"
ROOT = "/org/gpuwarden1"
INTERFACE = f"{NAME}.Probe"
FAULT = "a fault of ours"
UNCLEAN = "before\0after"
TICK_SECONDS = 0.005


class Probe:
    """What the service does, whatever library carries it."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Task[object]] = []
        self.somebody_waits = asyncio.Event()
        self.worst_lag_seconds = 0.0

    async def watch_lag(self) -> None:
        """Note how much is done between two looks of a task that wants to look all the time.

        In seconds of this process's CPU, which other work on the machine does not stretch.
        """
        while True:
            before = time.process_time()
            await asyncio.sleep(TICK_SECONDS)
            self.worst_lag_seconds = max(self.worst_lag_seconds, time.process_time() - before)

    def take_lag(self) -> float:
        worst, self.worst_lag_seconds = self.worst_lag_seconds, 0.0
        return worst

    async def wait(self) -> str:
        task = asyncio.current_task()
        assert task is not None
        self.waiting.append(task)
        self.somebody_waits.set()
        await asyncio.Event().wait()
        return "never"

    async def cancel(self) -> int:
        """Cancel all that wait, once somebody does."""
        await self.somebody_waits.wait()
        self.somebody_waits.clear()
        count = len(self.waiting)
        for task in self.waiting:
            task.cancel()
        self.waiting.clear()
        return count
