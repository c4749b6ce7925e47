# SPDX-License-Identifier: Apache-2.0
"""The loop round one card: look every few seconds, publish each second, let go when told to.

The loop never calls the driver: a thread does, and may be lost there. What it found before is then
not said again: the state is ``blind``, and nothing is claimed of anybody.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from gpuwarden.control.lease import Lease
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import ScanData
from gpuwarden.nvml.thread import DriverThread
from gpuwarden.scan.chronicle import Chronicle
from gpuwarden.scan.evidence import Customs
from gpuwarden.scan.outcome import NotSeen, Seen
from gpuwarden.scan.publication import blind_data, released_data, seen_data, status_line
from gpuwarden.systemd.former import former_processes
from gpuwarden.systemd.notify import Notifier

PUBLISH_EVERY_SECONDS = 1.0
LEASE_EVERY_SECONDS = 0.5  # a release is obeyed within a second
# For one look, all of /proc included: a healthy one takes some 50 ms.
LOOK_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 10.0  # design: a lost card or a missing driver is looked for that often
LOOK_FOR_PLAN_SECONDS = 1.0
STOP_SECONDS = 5.0

Result = TypeVar("Result")


class Looks(Protocol):
    """A card as :class:`gpuwarden.scan.scanner.Scanner` sees it."""

    def look(self, customs: Customs) -> Seen | NotSeen:
        """Look at it once."""

    def close(self) -> None:
        """Let go of it."""


class CardWatch:
    """Watches one card.

    :param settings: the seconds from one look to the next, and what is known beforehand.
    :param lease: what the card's thermal guard was asked for; a release of the card holds here,
        too, so that nobody has it open when it is reset.
    :param former: the processes of a former life that the driver has not let go of.
    """

    def __init__(
        self,
        gpu_index: int,
        scanner: Looks,
        snapshot_file: Path,
        settings: Callable[[], tuple[float, Customs]],
        lease: Callable[[], Lease | None],
        *,
        simulated: bool = False,
        notifier: Notifier | None = None,
        former: Callable[[], list[int]] = former_processes,
    ) -> None:
        self.data = blind_data(gpu_index, "", "starting", 0)
        self._gpu_index = gpu_index
        self._scanner = scanner
        self._settings = settings
        self._lease = lease
        self._simulated = simulated
        self._notifier = notifier or Notifier()
        self._former = former
        self._writer = SnapshotWriter(snapshot_file, f"scan@{gpu_index}")
        self._chronicle = Chronicle(gpu_index)
        self._thread: DriverThread | None = None
        self._asked_at: float | None = None  # a call that has not come back
        self._told = asyncio.Event()  # there is something to say
        self._turned = asyncio.Event()  # a release has begun or ended
        self._release: Lease | None = None
        self._entered = False
        self._scans = 0
        self._ready = False

    async def run(self) -> None:
        """Watch the card until cancelled."""
        self._thread = DriverThread("driver")
        self._release = self._running_release()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._mind_lease())
            tasks.create_task(self._tick())

    async def stop(self) -> None:
        """Let go of the card, if the driver lets us. Call after ``run``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._call(self._scanner.close)

    async def _watch(self) -> None:
        while True:
            self._turned.clear()
            pause = await (self._stay_away() if self._release else self._look())
            self._told.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._turned.wait()

    async def _look(self) -> float:
        """One look; the seconds until the next."""
        if not self._entered and (held := self._former()):
            return self._wait_for_former(held)
        self._entered = True
        period_seconds, customs = self._settings()
        found = await self._call(lambda: self._scanner.look(customs))
        if isinstance(found, Seen):
            self._scans += 1
        self._say(seen_data(self._gpu_index, found, self._scans))
        if isinstance(found, Seen):
            return period_seconds
        return LOOK_FOR_PLAN_SECONDS if found.unplanned else LOOK_AGAIN_SECONDS

    def _wait_for_former(self, held: list[int]) -> float:
        """Don't ask a driver that never answered before: it would be one more that hangs."""
        pids = ", ".join(str(pid) for pid in held)
        problem = (
            f"its former process (PID {pids}) hangs in the driver and no signal ends it; the "
            "driver is asked again when it has ended, if it doesn't: reboot"
        )
        self._say(blind_data(self._gpu_index, self.data.gpu_uuid, problem, self._scans))
        return LOOK_AGAIN_SECONDS

    async def _stay_away(self) -> float:
        """The card is released: closed, and nothing asked of it."""
        if not self._entered and (held := self._former()):
            return self._wait_for_former(held)  # it is not closed as long as that lives
        await self._call(self._scanner.close)
        if self._release is not None:
            uuid, until = self.data.gpu_uuid, self._release.until
            self._say(released_data(self._gpu_index, uuid, until, self._scans))
        return LOOK_AGAIN_SECONDS

    async def _call(self, function: Callable[[], Result]) -> Result:
        assert self._thread is not None, "started with run"
        self._asked_at = time.monotonic()
        try:
            return await self._thread.call(function)
        finally:
            self._asked_at = None

    def _running_release(self) -> Lease | None:
        lease = self._lease()
        return lease if lease is not None and lease.state == "released" else None

    async def _mind_lease(self) -> None:
        while True:
            before, self._release = self._release, self._running_release()
            if before != self._release:
                self._turned.set()
            await asyncio.sleep(LEASE_EVERY_SECONDS)

    async def _tick(self) -> None:
        """Publish each second, and at once what is new, whatever the driver does."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_EVERY_SECONDS):
                    await self._told.wait()
            self._told.clear()
            overdue = self._overdue()
            if overdue:
                text = f"the driver has not answered for over {LOOK_SECONDS:.0f} s"
                self._say(blind_data(self._gpu_index, self.data.gpu_uuid, text, self._scans))
            else:
                self._notifier.watchdog()
            if overdue or self.data.problem != "starting":
                self._publish()

    def _overdue(self) -> bool:
        return self._asked_at is not None and time.monotonic() - self._asked_at > LOOK_SECONDS

    def _say(self, data: ScanData) -> None:
        before, self.data = self.data, data
        self._chronicle.changed(before, data)

    def _publish(self) -> None:
        self._writer.publish_or_say(self.data)
        self._notifier.status(status_line(self.data, self._simulated))
        if not self._ready:
            self._ready = True
            self._notifier.ready()
