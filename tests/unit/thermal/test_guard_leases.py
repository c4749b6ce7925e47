# SPDX-License-Identifier: Apache-2.0
"""Overrides and releases while the guard is at work."""

import time
from pathlib import Path

import pytest

from gpuwarden.thermal.decision import UNTOUCHED
from gpuwarden.thermal.observation import Trouble
from gpuwarden.values import ThermalState
from tests.unit.thermal.guarding import (
    AT_ALERT,
    BLIND_SECONDS,
    PUBLISHED_SECONDS,
    StandInCard,
    guarding,
    is_in,
)
from tests.unit.thermal.leases import lease
from tests.unit.thermal.readings import not_seen, seen

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL
BLIND, RELEASED = ThermalState.BLIND, ThermalState.RELEASED


# --- overrides


async def test_an_override_is_in_the_snapshot_at_once_and_on_the_card(
    tmp_path: Path, card: StandInCard, rare: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("critical"))
        data = await running.until(is_in(CRITICAL))
        assert data.reason.startswith("override: critical until ")
        assert (data.admission, data.stop_requested) == ("paused", False)
        await running.happens(lambda: card.applied[-1].power_limit_watts == 100)
        assert "override-started" in running.events
        running.guard.end_lease("cleared")
        await running.until(is_in(NORMAL))
        assert running.events[-2:] == ["override-ended", "thermal-state"]


async def test_an_override_ends_by_itself(tmp_path: Path, card: StandInCard, quick: None) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("alert", seconds=0.5))
        await running.until(is_in(ALERT))
        await running.until(is_in(NORMAL))
        assert running.guard.lease is None
        assert not (tmp_path / "0.lease.json").exists()
        messages = [event.message for event in running.guard.chronicle.events]
        assert "GPU 0: override to alert ended: its time is over" in messages


async def test_an_override_outlives_its_guard(tmp_path: Path, card: StandInCard) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("critical"))
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(CRITICAL))
        running.guard.end_lease("cleared")
        await running.until(is_in(NORMAL))


async def test_an_override_that_cannot_be_kept_does_not_begin(
    tmp_path: Path, card: StandInCard
) -> None:
    folder = tmp_path / "gone"
    async with guarding(folder, card) as running:
        await running.looks(1)
        with pytest.raises(FileNotFoundError):
            running.guard.lend(lease("critical"))
        assert running.guard.lease is None
        assert "override-started" not in running.events


# --- releases


async def test_a_released_card_is_restored_closed_and_left_alone(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("released"))
        data = await running.until(is_in(RELEASED))
        assert card.done == ["restore", "close"]
        assert data.reason.startswith("released until ")
        assert data.admission == "paused"
        assert data.temperature_celsius is None
        looks, applied, fed = card.looks, len(card.applied), running.listener.fed
        await running.publications(20)  # well over what blindness takes
        assert (card.looks, len(card.applied)) == (looks, applied)
        assert card.done == ["restore", "close"]
        await running.happens(lambda: running.listener.fed > fed)
        data = await running.until(lambda data: True)
        assert data.state is RELEASED


async def test_a_released_card_is_published_no_more_often_than_another(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("released"))
        await running.until(is_in(RELEASED))
        await running.publications(int(2 * BLIND_SECONDS / PUBLISHED_SECONDS))
        before = time.monotonic()
        await running.publications(10)
        assert time.monotonic() - before >= 8 * PUBLISHED_SECONDS


async def test_a_release_is_in_the_snapshot_at_once(
    tmp_path: Path, card: StandInCard, rare: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("released"))
        await running.until(is_in(RELEASED))
        running.guard.end_lease("cleared")
        await running.until(is_in(NORMAL))


async def test_the_end_of_a_release_is_no_blindness(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("released", seconds=1.0))
        await running.until(is_in(RELEASED))
        await running.until(is_in(NORMAL))
        states = [e.message for e in running.guard.chronicle.events if e.event == "thermal-state"]
        assert states[-1] == "GPU 0: released -> normal"
        assert "sensor-lost" not in running.events
        assert "card-taken-back" in running.events


async def test_a_card_that_is_taken_back_gets_nothing_back_before_it_is_read(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    card.answer = seen(80)
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(ALERT))
        running.guard.lend(lease("released"))
        await running.until(is_in(RELEASED))
        assert card.done == ["keep", "close"]
        applied = len(card.applied)
        card.answer = not_seen(Trouble.SENSOR, "unknown error")
        running.guard.end_lease("cleared")
        await running.until(is_in(BLIND))
        await running.happens(lambda: len(card.applied) > applied)
        assert UNTOUCHED not in card.applied[applied:]
        assert card.applied[applied].power_limit_watts == AT_ALERT.power_limit_watts


async def test_a_driver_that_hangs_releases_nothing(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        card.free.clear()
        running.guard.lend(lease("released"))
        await running.until(is_in(BLIND))
        card.free.set()
        await running.until(is_in(RELEASED))
        assert card.done[-1] == "close"


async def test_a_guard_that_starts_while_its_card_is_released_does_not_touch_it(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("released"))
        await running.until(is_in(RELEASED))
    looks = card.looks
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(RELEASED))
        await running.publications(3)
        assert card.looks == looks
        assert card.applied[-1] == UNTOUCHED
        running.guard.end_lease("cleared")
        await running.until(is_in(NORMAL))


async def test_an_override_ends_a_release(tmp_path: Path, card: StandInCard) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("released"))
        await running.until(is_in(RELEASED))
        running.guard.lend(lease("alert"))
        await running.until(is_in(ALERT))
        assert "card-taken-back" in running.events
        assert "sensor-lost" not in running.events
