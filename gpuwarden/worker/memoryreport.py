# SPDX-License-Identifier: Apache-2.0
"""Tells the gateway every few seconds how the engine's memory stands, and drops caches for it."""

import asyncio
from typing import Any, Callable, Dict, Mapping, Optional

from gpuwarden.worker.allocator import monitor_interval, read_figures, warning_threshold
from gpuwarden.worker.engine import Engine
from gpuwarden.worker.gpu import GpuThread
from gpuwarden.worker.shortage import drop_caches
from gpuwarden.worker.waiting import within

Report = Callable[[Dict[str, Any]], None]


class MemoryReports:
    """Reads on the GPU thread, between two batches or steps; a busy one is waited for.

    :param report: sends what was read.
    :ivar simulated_bytes: what is held on a simulated card, for engines that say nothing.
    """

    def __init__(self, gpu: GpuThread, options: Mapping[str, Any], report: Report) -> None:
        self._gpu = gpu
        self.simulated_bytes: Optional[int] = None
        self._seconds = monitor_interval(options)
        self._threshold = warning_threshold(options)
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._soon = asyncio.Event()
        self._is_to_drop = False
        self._shortages = 0
        self._shortages_alone = 0

    async def run(self, engine: Engine) -> None:
        """Report until cancelled."""
        while True:
            if self._is_to_drop:
                self._is_to_drop = False
                await self._gpu.run(drop_caches, engine)
            figures: Dict[str, Any] = dict(await self._gpu.run(read_figures, engine))
            if not figures and self.simulated_bytes is not None:
                figures = dict.fromkeys(("reserved_bytes", "allocated_bytes"), self.simulated_bytes)
            if figures or self._shortages or self._shortages_alone:
                figures["warning_threshold"] = self._threshold
                figures["shortages"] = self._shortages
                figures["shortages_alone"] = self._shortages_alone
                self._report(figures)
            await self._pause()

    def relieve(self) -> None:
        """The gateway wants caches dropped, as soon as the GPU thread comes to it."""
        self._is_to_drop = True
        self._soon.set()

    def count_shortage(self, alone: bool) -> None:
        """A batch, or one request by itself, ran out of memory. From any thread."""
        self._loop.call_soon_threadsafe(self._count, alone)

    def _count(self, alone: bool) -> None:
        self._shortages += not alone
        self._shortages_alone += alone
        self._soon.set()

    async def _pause(self) -> None:
        try:
            await within(self._seconds, self._soon.wait())
        except asyncio.TimeoutError:
            return
        finally:
            self._soon.clear()
