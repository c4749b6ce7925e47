# SPDX-License-Identifier: Apache-2.0
"""A guard at work on a stand-in for its card, which hangs and fails as a test wants."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gpuwarden.config.thermal import CardWishes
from gpuwarden.control.lease_store import LeaseStore
from gpuwarden.control.snapshot import SnapshotError, read_snapshot
from gpuwarden.control.states import ThermalData
from gpuwarden.systemd.notify import Notifier
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.decision import Authority, Settings
from gpuwarden.thermal.guard import ThermalGuard
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.mind import Rules
from gpuwarden.thermal.observation import Observation
from gpuwarden.values import ThermalState
from tests.unit.thermal.readings import AUTHORITY

DEADLINE_SECONDS = 30.0
# With the fixture ``quick``:
PUBLISHED_SECONDS = 0.05
BLIND_SECONDS = 0.4
AT_ALERT = Settings(power_limit_watts=245.0, sm_clock_mhz=1440, batch_limit=1)
STEPPED = Rules(CardWishes(policy="stepped"))  # the policy that is easiest to foresee


class Listener(Notifier):
    """Takes down what systemd would be told."""

    def __init__(self) -> None:
        super().__init__()
        self.readies = 0
        self.fed = 0
        self.statuses: list[str] = []

    def ready(self) -> None:
        self.readies += 1

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def watchdog(self) -> None:
        self.fed += 1


class StandInCard:
    """A card whose answer is set from outside, and that can hang.

    :ivar done: what was asked of it, oldest first; looks are only counted.
    """

    def __init__(self, answer: Observation) -> None:
        self.answer = answer
        self.means = AUTHORITY
        self.looks = 0
        self.done: list[str] = []
        self.applied: list[Settings] = []
        self.options: Options | None = None
        self.told: list[Happening] = []
        self.free = threading.Event()
        self.free.set()
        self.is_waiting = False
        self.original_watts: float | None = 350.0
        self.sm_lock_mhz: int | None = None

    def look(self) -> Observation:
        self._enter()
        self.looks += 1
        return self.answer

    def apply(self, settings: Settings) -> tuple[Happening, ...]:
        self._enter()
        self.applied.append(settings)
        return self.happenings()

    def happenings(self) -> tuple[Happening, ...]:
        told, self.told = tuple(self.told), []
        return told

    def configure(self, options: Options) -> None:
        self.options = options

    def authority(self) -> Authority:
        return self.means

    def reasons(self) -> dict[str, str]:
        return {"power-limit": ""}

    def restore(self, keep_safe: bool = False) -> tuple[Happening, ...]:
        self._enter()
        self.done.append("keep" if keep_safe else "restore")
        return self.happenings()

    def close(self) -> None:
        self._enter()
        self.done.append("close")

    def _enter(self) -> None:
        self.is_waiting = not self.free.is_set()
        self.free.wait()
        self.is_waiting = False


class Running:
    """A guard, and what is seen of it."""

    def __init__(self, guard: ThermalGuard, card: StandInCard, file: Path, ear: Listener) -> None:
        self.guard = guard
        self.card = card
        self.file = file
        self.listener = ear

    def published(self) -> ThermalData | None:
        try:
            return read_snapshot(self.file, ThermalData).data
        except SnapshotError:
            return None

    @property
    def sequence(self) -> int:
        return read_snapshot(self.file, ThermalData).sequence

    @property
    def events(self) -> list[str]:
        return [event.event for event in self.guard.chronicle.events]

    async def until(self, wanted: Callable[[ThermalData], bool]) -> ThermalData:
        """What is published, once it is as wanted."""
        found: list[ThermalData] = []

        def is_wanted() -> bool:
            data = self.published()
            if data is None or not wanted(data):
                return False
            found.append(data)
            return True

        await self.happens(is_wanted)
        return found[-1]

    async def happens(self, wanted: Callable[[], bool]) -> None:
        """Returns once it is so."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                if wanted():
                    return
                await asyncio.sleep(0.01)

    async def looks(self, count: int) -> None:
        """So many looks from now have been completed."""
        goal = self.card.looks + count
        await self.happens(lambda: self.card.looks >= goal)

    async def publications(self, count: int) -> None:
        """So many snapshots from now were written."""
        goal = self.sequence + count
        await self.happens(lambda: self.sequence >= goal)


def make_guard(
    folder: Path, card: StandInCard, rules: Rules = STEPPED, *, note: str = "", ear: Listener
) -> ThermalGuard:
    return ThermalGuard(
        0,
        card,
        folder / "0.json",
        LeaseStore(folder / "0.lease.json"),
        rules,
        sample_seconds=0.02,
        note=note,
        notifier=ear,
    )


@asynccontextmanager
async def guarding(
    folder: Path,
    card: StandInCard,
    rules: Rules = STEPPED,
    *,
    note: str = "",
    thawed: bool = True,
) -> AsyncIterator[Running]:
    """A guard at work until the end of the block; it isn't stopped, as one that is killed.

    :param thawed: whether a driver that hangs is let go on at the end.
    """
    ear = Listener()
    guard = make_guard(folder, card, rules, note=note, ear=ear)
    task = asyncio.ensure_future(guard.run())
    try:
        yield Running(guard, card, folder / "0.json", ear)
        assert not task.done(), task.exception()
    finally:
        if thawed:
            card.free.set()
        task.cancel()
        _, waiting = await asyncio.wait([task], timeout=DEADLINE_SECONDS)
        assert not waiting, "the guard has not heeded its stop"


def is_in(state: ThermalState) -> Callable[[ThermalData], bool]:
    return lambda data: data.state is state
