import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpuwarden.control.snapshot import SnapshotError, read_snapshot
from gpuwarden.control.states import ThermalData
from gpuwarden.systemd.notify import Notifier
from gpuwarden.thermal import service
from gpuwarden.thermal.observation import Observation, Trouble
from gpuwarden.thermal.service import ThermalGuard
from gpuwarden.values import ThermalState
from tests.unit.thermal.readings import not_seen, seen

DEADLINE_SECONDS = 15.0


class Listener(Notifier):
    """Takes down what systemd would be told."""

    def __init__(self) -> None:
        super().__init__()
        self.readies = 0
        self.fed_at: list[float] = []
        self.statuses: list[str] = []

    def ready(self) -> None:
        self.readies += 1

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def watchdog(self) -> None:
        self.fed_at.append(time.monotonic())


class Driver:
    """A driver whose answer is set from outside, and that can hang."""

    def __init__(self, answer: Observation) -> None:
        self.answer = answer
        self.attempts = 0
        self.changed = threading.Condition()
        self.free = threading.Event()
        self.free.set()

    def attempt(self) -> Observation:
        self.free.wait()
        with self.changed:
            self.attempts += 1
            self.changed.notify_all()
        return self.answer

    def wait_for_attempts(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.attempts >= count, DEADLINE_SECONDS)


Until = Callable[[Callable[[ThermalData], bool]], Awaitable[ThermalData]]


class Running:
    """A guard at work on a card, and the file it publishes to."""

    def __init__(self, folder: Path, driver: Driver, note: str = "") -> None:
        self.file = folder / "0.json"
        self.listener = Listener()
        self.guard = ThermalGuard(
            0,
            driver.attempt,
            self.file,
            period_seconds=0.02,
            note=note,
            notifier=self.listener,
        )

    async def __aenter__(self) -> "Running":
        self.task = asyncio.ensure_future(self.guard.run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def published(self) -> ThermalData | None:
        try:
            return read_snapshot(self.file, ThermalData).data
        except SnapshotError:
            return None

    async def until(self, wanted: Callable[[ThermalData], bool]) -> ThermalData:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                data = self.published()
                if data is not None and wanted(data):
                    return data
                await asyncio.sleep(0.01)


@pytest.fixture
def driver() -> Driver:
    return Driver(seen(50))


async def test_it_is_ready_once_and_only_after_it_has_published(
    tmp_path: Path, driver: Driver
) -> None:
    driver.free.clear()
    async with Running(tmp_path, driver) as running:
        await asyncio.sleep(0)
        assert running.published() is None
        assert running.listener.readies == 0
        driver.free.set()
        data = await running.until(lambda data: True)
        assert data.state is ThermalState.NORMAL
        assert running.listener.readies == 1


async def test_a_change_of_state_is_published_before_the_next_second(
    tmp_path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PUBLISH_EVERY_SECONDS", 3600.0)
    async with Running(tmp_path, driver) as running:
        await running.until(lambda data: data.state is ThermalState.NORMAL)
        driver.answer = seen(90)
        await running.until(lambda data: data.state is ThermalState.CRITICAL)


async def test_a_driver_that_hangs_is_published_as_blind_and_starves_the_watchdog(
    tmp_path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PUBLISH_EVERY_SECONDS", 0.05)
    async with Running(tmp_path, driver) as running:
        await running.until(lambda data: data.state is ThermalState.NORMAL)
        driver.free.clear()
        await running.until(lambda data: data.state is ThermalState.BLIND)
        fed, sequence = len(running.listener.fed_at), _sequence(running)
        await running.until(lambda data: _sequence(running) >= sequence + 5)
        assert len(running.listener.fed_at) == fed
        driver.free.set()
        await running.until(lambda data: data.state is ThermalState.NORMAL)


async def test_a_driver_that_hangs_from_the_start_leaves_it_ready_and_blind(
    tmp_path: Path, driver: Driver
) -> None:
    driver.free.clear()
    async with Running(tmp_path, driver) as running:
        data = await running.until(lambda data: True)
        assert data.state is ThermalState.BLIND
        assert "not answered" in data.reason
        assert running.listener.readies == 1
        driver.free.set()
        await running.until(lambda data: data.state is ThermalState.NORMAL)


@pytest.mark.parametrize(
    ("trouble", "state"),
    [(Trouble.NO_DRIVER, ThermalState.BLIND), (Trouble.LOST, ThermalState.LOST)],
)
async def test_without_its_card_it_is_ready_feeds_the_watchdog_and_looks_again(
    tmp_path: Path,
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Trouble,
    state: ThermalState,
) -> None:
    monkeypatch.setattr(service, "PUBLISH_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(service, "LOOK_AGAIN_SECONDS", 0.1)
    driver.answer = not_seen(trouble, "not there")
    async with Running(tmp_path, driver) as running:
        data = await running.until(lambda data: driver.attempts >= 3)
        assert (data.state, data.reason) == (state, "not there")
        assert running.listener.readies == 1
        assert running.listener.fed_at
        driver.answer = seen(50)
        await running.until(lambda data: data.state is ThermalState.NORMAL)


async def test_a_folder_that_cannot_be_written_does_not_end_it(
    tmp_path: Path, driver: Driver
) -> None:
    folder = tmp_path / "thermal"
    async with Running(folder, driver) as running:
        await asyncio.wait_for(asyncio.to_thread(driver.wait_for_attempts, 5), DEADLINE_SECONDS)
        assert running.listener.readies == 0
        folder.mkdir()
        await running.until(lambda data: True)
        assert running.listener.readies == 1


async def test_its_status_names_card_heat_power_and_state(tmp_path: Path, driver: Driver) -> None:
    async with Running(tmp_path, driver, note="the defaults hold") as running:
        await running.until(lambda data: True)
        assert running.listener.statuses[0] == (
            "GPU 0 50 C, 300 of 350 W, normal (watching only): the defaults hold"
        )


def _sequence(running: Running) -> int:
    return read_snapshot(running.file, ThermalData).sequence
