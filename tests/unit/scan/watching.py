# SPDX-License-Identifier: Apache-2.0
"""A watch at work on a stand-in for its card, which hangs and fails as a test wants."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gpuwarden.control.lease import Lease
from gpuwarden.control.snapshot import SnapshotError, read_snapshot
from gpuwarden.control.states import ScanData
from gpuwarden.scan.evidence import Customs
from gpuwarden.scan.outcome import NotSeen, Seen
from gpuwarden.scan.watch import CardWatch
from tests.unit.scan.evidences import CUSTOMS
from tests.unit.thermal.guarding import Listener

DEADLINE_SECONDS = 30.0
PERIOD_SECONDS = 0.02


class StandInScanner:
    """Answers what a test sets; may hang."""

    def __init__(self, answer: Seen | NotSeen) -> None:
        self.answer = answer
        self.looks = 0
        self.closed = 0
        self.free = threading.Event()
        self.free.set()

    def look(self, customs: Customs) -> Seen | NotSeen:
        self.free.wait()
        assert customs is CUSTOMS
        self.looks += 1
        return self.answer

    def close(self) -> None:
        self.free.wait()
        self.closed += 1


class Running:
    """A watch, and what is seen of it."""

    def __init__(self, folder: Path, scanner: StandInScanner) -> None:
        self.file = folder / "0.json"
        self.scanner = scanner
        self.lease: Lease | None = None
        self.former: list[int] = []
        self.listener = Listener()
        self.watch = CardWatch(
            0,
            scanner,
            self.file,
            lambda: (PERIOD_SECONDS, CUSTOMS),
            lambda: self.lease,
            notifier=self.listener,
            former=lambda: self.former,
        )

    def published(self) -> ScanData | None:
        try:
            return read_snapshot(self.file, ScanData).data
        except SnapshotError:
            return None

    async def until(self, state: str, problem: str = "") -> ScanData:
        """What is published, once it is in this state for this reason."""
        found: list[ScanData] = []

        def is_so() -> bool:
            data = self.published()
            if data is None or data.state != state or problem not in data.problem:
                return False
            found.append(data)
            return True

        await self.happens(is_so)
        return found[-1]

    async def happens(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                if wanted():
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(running: Running) -> AsyncIterator[Running]:
    """The watch at work until the end of the block."""
    task = asyncio.create_task(running.watch.run())
    try:
        yield running
    finally:
        running.scanner.free.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
