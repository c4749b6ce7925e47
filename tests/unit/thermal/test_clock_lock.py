# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.nvml.errors import CardLostError
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.clock_lock import DISREGARDED_AFTER_CHECKS
from gpuwarden.thermal.decision import UNTOUCHED, Settings
from gpuwarden.thermal.power_limit import RETRY_SECONDS
from tests.unit.thermal.model_card import CLOCKS, Guard, World

NO_PERMISSION, LOST, UNKNOWN = 4, 15, 999
ECO = Settings(sm_clock_mhz=900)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def guard(world: World) -> Guard:
    return Guard(world)


def reason(guard: Guard) -> str:
    return guard.actuators.reasons()["sm-clock-lock"]


@pytest.mark.parametrize(
    ("asked", "locked"), [(900, 900), (914, 900), (10_000, 1800), (1, 300), (300, 300)]
)
def test_a_lock_is_a_clock_that_the_card_has(guard: Guard, asked: int, locked: int) -> None:
    guard.actuators.apply(Settings(sm_clock_mhz=asked))
    assert guard.world.sm_lock == locked
    assert guard.actuators.sm_lock_mhz == locked


def test_a_memory_lock_is_a_clock_that_the_memory_has(guard: Guard) -> None:
    for asked, locked in ((2000, 2000), (2999, 2000), (100, 400)):
        guard.actuators.apply(Settings(memory_clock_mhz=asked))
        assert guard.world.memory_lock == locked


def test_a_lock_of_the_administrator_is_not_touched_by_looking(world: World) -> None:
    world.sm_lock = 1500
    guard = Guard(world)
    guard.actuators.apply(UNTOUCHED)
    guard.actuators.check()
    guard.actuators.restore()
    assert world.sm_lock == 1500


def test_a_lock_that_a_killed_guard_left_is_taken_away_when_it_is_not_wanted(
    guard: Guard,
) -> None:
    guard.actuators.apply(ECO)
    after = Guard(guard.world)
    assert after.actuators.sm_lock_mhz == 900
    after.actuators.apply(UNTOUCHED)
    assert guard.world.sm_lock is None
    assert after.actuators.sm_lock_mhz is None


def test_a_lock_that_a_killed_guard_left_is_set_anew_where_it_is_wanted(guard: Guard) -> None:
    guard.actuators.apply(ECO)
    guard.world.sm_lock = None  # the card was reset meanwhile, which no driver tells
    Guard(guard.world).actuators.apply(ECO)
    assert guard.world.sm_lock == 900


def test_the_baseline_comes_back_instead_of_no_lock(world: World) -> None:
    guard = Guard(world, Options(sm_clock_baseline_mhz=1507))
    guard.actuators.apply(ECO)
    guard.actuators.apply(UNTOUCHED)
    assert world.sm_lock == 1500
    assert guard.actuators.authority().sm_clocks_mhz == (CLOCKS.lowest_mhz, 1500)


def test_a_refused_lock_is_not_on_record_and_is_tried_again_after_a_minute(guard: Guard) -> None:
    guard.card.fails["lock_sm_clocks"] = NO_PERMISSION
    for _ in range(3):
        guard.actuators.apply(ECO)
    assert guard.card.calls.count("lock_sm_clocks") == 1
    assert "permission denied" in reason(guard)
    assert guard.ledger.record.sm_lock_mhz is None
    guard.card.fails.clear()
    guard.now += RETRY_SECONDS
    guard.actuators.apply(ECO)
    assert (guard.world.sm_lock, reason(guard)) == (900, "")


def test_a_lock_that_may_have_taken_effect_stays_on_record(guard: Guard) -> None:
    guard.card.fails["lock_sm_clocks"] = UNKNOWN
    guard.actuators.apply(ECO)
    guard.world.sm_lock = 900
    assert guard.ledger.record.sm_lock_mhz == 900
    assert guard.actuators.restore()
    assert guard.world.sm_lock is None


def test_a_lock_that_the_card_does_not_heed_is_found_out(guard: Guard) -> None:
    guard.actuators.apply(ECO)
    guard.card.runs_at_mhz = 1800
    for _ in range(DISREGARDED_AFTER_CHECKS):
        assert reason(guard) == ""
        guard.actuators.check()
    assert reason(guard) == "locked at 900 MHz, it runs at 1800 MHz"
    assert guard.actuators.authority().sm_clocks_mhz is None
    guard.now += RETRY_SECONDS
    guard.actuators.apply(UNTOUCHED)
    assert guard.world.sm_lock is None


def test_a_clock_that_is_above_for_a_moment_is_no_disregard(guard: Guard) -> None:
    guard.actuators.apply(ECO)
    for running in (1800, 900, 1800, 900, 1800, 910):
        guard.card.runs_at_mhz = running
        guard.actuators.check()
    assert reason(guard) == ""


def test_a_card_without_clocks_or_of_an_older_generation_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = "tests.unit.thermal.model_card.ModelCard"
    monkeypatch.setattr(f"{card}.is_at_least", lambda self, generation: False)
    reasons = Guard(world).actuators.reasons()
    assert "older than Volta" in reasons["sm-clock-lock"]
    assert "older than Ampere" in reasons["memory-clock-lock"]
    monkeypatch.setattr(f"{card}.sm_clocks", lambda self: None)
    monkeypatch.setattr(f"{card}.is_at_least", lambda self, generation: True)
    monkeypatch.setattr(f"{card}.memory_clocks_mhz", lambda self: (1512,))
    guard = Guard(world)
    assert guard.actuators.reasons()["sm-clock-lock"] == "the card does not list its SM clocks"
    assert "no lower memory clock" in guard.actuators.reasons()["memory-clock-lock"]
    guard.actuators.apply(ECO)
    assert world.sm_lock is None


def test_without_the_capability_no_lock_is_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuwarden.thermal.actuators.lacks_administration", lambda: "it may not")
    guard = Guard(world)
    guard.actuators.apply(ECO)
    assert reason(guard) == "it may not"
    assert "lock_sm_clocks" not in guard.card.calls


def test_a_lost_card_is_the_callers_to_deal_with(guard: Guard) -> None:
    guard.card.fails["lock_sm_clocks"] = LOST
    with pytest.raises(CardLostError):
        guard.actuators.apply(ECO)


def test_locks_are_told_in_words(guard: Guard) -> None:
    guard.teller.fetch()
    guard.actuators.apply(ECO)
    guard.actuators.apply(UNTOUCHED)
    told = guard.teller.fetch()
    assert [each.event for each in told] == [Event.THERMAL_WRITE] * 2
    assert [each.message for each in told] == [
        "GPU 0: SM clock not locked -> at most 900 MHz",
        "GPU 0: SM clock at most 900 MHz -> not locked",
    ]
