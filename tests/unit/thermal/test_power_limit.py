# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuwarden.nvml.errors import CardLostError
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.decision import UNTOUCHED, Settings
from gpuwarden.thermal.power_limit import RETRY_SECONDS
from tests.unit.thermal.model_card import DEFAULT_WATTS, LEAST_WATTS, Guard, World

INVALID, NOT_SUPPORTED, NO_PERMISSION, LOST, UNKNOWN = 2, 3, 4, 15, 999


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def guard(world: World) -> Guard:
    return Guard(world)


def limit(guard: Guard, watts: float | None) -> list[str]:
    """What is told when the policy asks for so many watts."""
    guard.teller.fetch()
    guard.actuators.apply(Settings(power_limit_watts=watts))
    return [each.message for each in guard.teller.fetch()]


def reason(guard: Guard) -> str:
    return guard.actuators.reasons()["power-limit"]


@pytest.mark.parametrize(
    ("asked", "set_milliwatts"),
    [
        (300.0, 300_000),
        (299.9, 299_000),
        (0.7 * 700 - 200, 290_000),  # 289.99..., by a float
        (1.0, LEAST_WATTS * 1000),
        (-5.0, LEAST_WATTS * 1000),
        (float("nan"), LEAST_WATTS * 1000),
        (DEFAULT_WATTS + 1000.0, DEFAULT_WATTS * 1000),
        (float("inf"), DEFAULT_WATTS * 1000),
        (None, DEFAULT_WATTS * 1000),
    ],
)
def test_a_limit_is_in_whole_watts_between_the_least_and_the_original(
    guard: Guard, asked: float | None, set_milliwatts: int
) -> None:
    limit(guard, asked)
    assert guard.world.limit_milliwatts == set_milliwatts


def test_the_original_comes_back_to_the_milliwatt(world: World) -> None:
    world.limit_milliwatts = world.wanted_milliwatts = 333_333
    guard = Guard(world)
    limit(guard, 200)
    limit(guard, 333.4)
    assert world.limit_milliwatts == 333_333


def test_a_board_that_rounds_is_not_asked_again_and_not_taken_for_somebody_else(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, rounding_milliwatts=2000)
    guard = Guard(world)
    assert limit(guard, 301) == ["GPU 0: power limit 350 -> 300 W"]
    assert guard.ledger.record.ours_milliwatts == 300_000
    calls = len(guard.card.calls)
    assert limit(guard, 301) == []
    guard.actuators.check()
    assert guard.card.calls[calls:] == ["power_limit_milliwatts"]
    assert guard.teller.fetch() == ()


def test_a_card_that_takes_a_limit_and_ignores_it_is_found_out(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard.card, "makes", lambda milliwatts: DEFAULT_WATTS * 1000)
    assert limit(guard, 200) == [
        "GPU 0: its power limit can't be set: the card takes 200 W and keeps 350 W"
    ]
    assert guard.actuators.authority().original_watts is None
    assert guard.ledger.record.holds_nothing_of_ours


def test_a_board_that_rounds_above_the_original_is_not_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.limit_milliwatts = 200_500
    guard = Guard(world)
    world.wanted_milliwatts = 201_000  # what the model lets pass
    monkeypatch.setattr(guard.card, "makes", lambda mw: mw if mw == 200_500 else 201_000)
    (told,) = limit(guard, 200)
    assert "which is above the original 200.5 W" in told
    assert world.limit_milliwatts == 200_500
    assert reason(guard) != ""


def test_a_limit_that_is_neither_old_nor_new_is_somebody_elses(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard.card, "makes", lambda milliwatts: 250_000)
    (told,) = limit(guard, 150)
    assert "changed from outside, 350 -> 250 W" in told
    assert guard.original_milliwatts == 250_000


@pytest.mark.parametrize("code", [INVALID, NOT_SUPPORTED, NO_PERMISSION, UNKNOWN])
def test_a_refusal_is_a_reason_told_once_and_tried_again_after_a_minute(
    guard: Guard, code: int
) -> None:
    guard.card.fails["set_power_limit"] = code
    assert len(limit(guard, 200)) == 1
    tries = guard.card.calls.count("set_power_limit")
    assert limit(guard, 200) == []
    assert guard.card.calls.count("set_power_limit") == tries
    guard.now += RETRY_SECONDS
    assert limit(guard, 200) == []
    assert guard.card.calls.count("set_power_limit") == tries + 1
    guard.card.fails.clear()
    guard.now += RETRY_SECONDS
    assert limit(guard, 200) == [
        "GPU 0: its power limit can be set again",
        "GPU 0: power limit 350 -> 200 W",
    ]
    assert reason(guard) == ""


def test_a_limit_that_cannot_be_read_back_is_still_known_for_ours(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_and_go_blind(milliwatts: int) -> int:
        guard.world.limit_milliwatts = milliwatts
        guard.card.fails["power_limit_milliwatts"] = UNKNOWN
        return guard.card.power_limit_milliwatts()

    with monkeypatch.context() as patch:
        patch.setattr(guard.card, "set_power_limit", set_and_go_blind)
        assert len(limit(guard, 200)) == 1
    assert limit(guard, 180) == []
    guard.card.fails.clear()
    guard.actuators.check()
    assert guard.original_milliwatts == DEFAULT_WATTS * 1000
    guard.now += RETRY_SECONDS
    limit(guard, None)
    assert guard.world.limit_milliwatts == DEFAULT_WATTS * 1000


def test_a_write_that_takes_effect_and_is_refused_all_the_same_is_ours(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_and_complain(milliwatts: int) -> int:
        guard.world.limit_milliwatts = milliwatts
        raise guard.card.error(UNKNOWN, "set_power_limit")

    monkeypatch.setattr(guard.card, "set_power_limit", set_and_complain)
    assert limit(guard, 200) == ["GPU 0: power limit 350 -> 200 W"]
    assert guard.ledger.record.ours_milliwatts == 200_000
    assert guard.original_milliwatts == DEFAULT_WATTS * 1000


def test_nothing_is_written_where_the_limit_cannot_be_read(guard: Guard) -> None:
    guard.card.fails["power_limit_milliwatts"] = UNKNOWN
    (told,) = limit(guard, 200)
    assert "can't be read" in told
    assert guard.world.limit_milliwatts == DEFAULT_WATTS * 1000


def test_a_card_without_a_limit_has_no_original(world: World) -> None:
    guard = Guard(world, fails={"power_limit_milliwatts": NOT_SUPPORTED})
    assert "not supported" in reason(guard)
    assert guard.actuators.original_watts is None
    limit(guard, 200)
    assert guard.actuators.restore()


def test_a_limit_that_can_be_read_only_later_is_judged_then(world: World) -> None:
    limit(Guard(world), 200)
    guard = Guard(world, fails={"power_limit_milliwatts": UNKNOWN})
    assert guard.actuators.authority().original_watts is None
    guard.card.fails.clear()
    guard.now += RETRY_SECONDS
    limit(guard, None)
    assert world.limit_milliwatts == DEFAULT_WATTS * 1000


def test_a_lost_card_is_the_callers_to_deal_with(guard: Guard) -> None:
    for function in ("power_limit_milliwatts", "set_power_limit"):
        guard.card.fails = {function: LOST}
        with pytest.raises(CardLostError):
            guard.actuators.apply(Settings(power_limit_watts=200))


def test_restoring_what_cannot_be_restored_says_how_to_do_it_by_hand(guard: Guard) -> None:
    limit(guard, 200)
    guard.card.fails["set_power_limit"] = NO_PERMISSION
    assert not guard.actuators.restore()
    told = guard.teller.fetch()[-1]
    assert told.event is Event.THERMAL_REFUSED
    assert "permission denied" in told.message
    assert "by hand: nvidia-smi -i GPU-model -pl 350" in told.message
    assert guard.ledger.record.ours_milliwatts == 200_000


@pytest.mark.parametrize("seconds", [299.0, 301.0])
def test_three_changes_are_a_fight_only_within_ten_minutes(guard: Guard, seconds: float) -> None:
    told: list[Event] = []
    for watts in (200, 210, 220):
        guard.world.set_from_outside(watts)
        guard.actuators.check()
        told += [each.event for each in guard.teller.fetch()]
        guard.now += seconds
    assert (Event.THERMAL_OUTSIDE_FIGHT in told) == (seconds < 300)
    assert told.count(Event.THERMAL_OUTSIDE_CHANGE) == 3


def test_each_change_is_on_record_before_the_card_has_it(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[bytes] = []

    def watch(function: Callable[[int], int]) -> Callable[[int], int]:
        def wrapped(milliwatts: int) -> int:
            on_disk.append(guard.store.disk_file.read_bytes())
            return function(milliwatts)

        return wrapped

    monkeypatch.setattr(guard.card, "set_power_limit", watch(guard.card.set_power_limit))
    limit(guard, 200)
    assert b'"next_milliwatts": 200000' in on_disk[0]
    assert b'"original_milliwatts": 350000' in on_disk[0]
    limit(guard, 150)
    assert b'"ours_milliwatts": 200000' in on_disk[1]
    assert b'"next_milliwatts": 150000' in on_disk[1]


def test_an_untouched_card_is_written_once_and_never_again(guard: Guard) -> None:
    for _ in range(5):
        guard.actuators.apply(UNTOUCHED)
        guard.actuators.check()
    assert guard.card.calls.count("set_power_limit") == 1
    assert guard.actuators.writes == 0
