# SPDX-License-Identifier: Apache-2.0
"""A card's settings, from the driver up: set, refused, changed by others, put back."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.systemd.events import Event
from gpuwarden.thermal.actuators import NAMES, TURNED_OFF, Options
from gpuwarden.thermal.card import GuardedCard
from gpuwarden.thermal.decision import UNTOUCHED, Authority, Settings
from gpuwarden.thermal.observation import Trouble, reading_of
from gpuwarden.thermal.power_limit import RETRY_SECONDS
from tests.integration.guarded_cards import (
    LEAST_WATTS,
    MEMORY_CLOCK_MHZ,
    ORIGINAL_WATTS,
    SM_RANGE_MHZ,
    Bench,
    bench_on,
)
from tests.integration.simulation import Node, running_node
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node") / "node", library, "H200", "T4") as running:
        yield running


@pytest.fixture
def bench(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with bench_on(node, tmp_path, monkeypatch) as made:
        yield made
    node.do("clear")
    node.do("reload-driver")


def apply(bench: Bench, card: GuardedCard, settings: Settings) -> list[Event]:
    return bench.take(card.apply(settings))


def test_a_card_says_what_can_be_moved(bench: Bench) -> None:
    card = bench.guard(Options(memory_clock_lock=True, max_batch=8))
    assert card.reasons() == dict.fromkeys(NAMES, "")
    assert card.authority() == Authority(
        original_watts=ORIGINAL_WATTS,
        minimum_watts=LEAST_WATTS,
        sm_clocks_mhz=SM_RANGE_MHZ,
        memory_clock_mhz=MEMORY_CLOCK_MHZ,
        max_batch=8,
        shutdown_celsius=95,
    )


def test_what_it_has_seen_is_what_a_policy_is_told(bench: Bench) -> None:
    seen = bench.seen(bench.guard())
    reading = reading_of(seen, 5.0)
    assert reading.at_seconds == 5
    assert 20 < reading.die_celsius < 50
    assert reading.memory_celsius is not None
    assert (reading.power_averaged, reading.slowed_by_hardware) == (False, False)
    assert seen.condition.counters.software_thermal_seconds == 0
    assert seen.condition.counters.hardware_power_brake_seconds == 0


def test_settings_reach_the_card_and_nothing_is_written_twice(bench: Bench) -> None:
    card = bench.guard(Options(memory_clock_lock=True))
    settings = Settings(
        power_limit_watts=450.7, sm_clock_mhz=1000, memory_clock_mhz=MEMORY_CLOCK_MHZ
    )
    assert apply(bench, card, settings) == [Event.THERMAL_WRITE] * 3
    assert bench.limit_watts == 450
    assert bench.sm_lock_mhz == [345, 990]
    assert bench.memory_lock_mhz == [MEMORY_CLOCK_MHZ, MEMORY_CLOCK_MHZ]
    assert (card.sm_lock_mhz, card.writes) == (990, 3)
    assert apply(bench, card, settings) == []
    apply(bench, card, Settings(power_limit_watts=10, sm_clock_mhz=1))
    assert bench.limit_watts == LEAST_WATTS
    assert bench.sm_lock_mhz == [345, 345]
    assert bench.memory_lock_mhz is None
    apply(bench, card, UNTOUCHED)
    assert (bench.limit_watts, bench.sm_lock_mhz) == (ORIGINAL_WATTS, None)
    assert bench.of(Event.THERMAL_WRITE)[0] == "GPU 0: power limit 700 -> 450 W"


def test_a_write_is_told_with_its_fields(bench: Bench) -> None:
    (told,) = bench.guard().apply(Settings(power_limit_watts=400))
    assert told.level == logging.INFO
    assert told.fields == {"GPU": "0", "GPU_UUID": bench.uuid, "POWER_LIMIT_WATTS": "400"}


def test_the_memory_clock_is_left_alone_unless_it_was_asked_for(bench: Bench) -> None:
    card = bench.guard()
    assert card.reasons()["memory-clock-lock"] == TURNED_OFF
    assert card.authority().memory_clock_mhz is None
    apply(bench, card, Settings(memory_clock_mhz=MEMORY_CLOCK_MHZ))
    assert bench.memory_lock_mhz is None


@pytest.mark.parametrize("watts", [300, 650])
def test_an_outside_change_is_the_ceiling_and_comes_back(bench: Bench, watts: int) -> None:
    card = bench.guard()
    apply(bench, card, Settings(400))
    bench.hurt(f"external-limit={watts}")
    bench.look(card)
    assert f"400 -> {watts} W" in bench.of(Event.THERMAL_OUTSIDE_CHANGE)[0]
    assert card.authority().original_watts == watts
    assert json.loads(bench.file.read_text())["original_milliwatts"] == watts * 1000
    apply(bench, card, Settings(690))
    assert bench.limit_watts == watts
    apply(bench, card, Settings(250))
    assert bench.limit_watts == 250
    bench.take(card.restore())
    assert bench.limit_watts == watts


def test_an_outside_change_just_before_a_write_is_noticed(bench: Bench) -> None:
    card = bench.guard()
    apply(bench, card, Settings(400))
    bench.hurt("external-limit=300")
    assert Event.THERMAL_OUTSIDE_CHANGE in apply(bench, card, Settings(450))
    assert bench.limit_watts == 300
    assert card.original_watts == 300


def test_three_outside_changes_within_ten_minutes_are_a_fight(bench: Bench) -> None:
    card = bench.guard()
    for watts in (450, 260, 270):
        bench.hurt(f"external-limit={watts}")
        bench.look(card, 100.0)
    assert len(bench.of(Event.THERMAL_OUTSIDE_FIGHT)) == 1
    for watts in (450, 260, 270):
        bench.hurt(f"external-limit={watts}")
        bench.look(card, 400.0)
    assert len(bench.of(Event.THERMAL_OUTSIDE_FIGHT)) == 1


def test_without_permission_nothing_is_set_and_the_reason_is_told_once(bench: Bench) -> None:
    bench.hurt("no-permission")
    card = bench.guard()
    assert "permission denied" in card.reasons()["power-limit"]
    assert card.authority().original_watts is None
    assert card.original_watts == ORIGINAL_WATTS
    for _ in range(4):
        apply(bench, card, Settings(400, 600))
        bench.look(card, RETRY_SECONDS)
    assert "permission denied" in card.reasons()["sm-clock-lock"]
    assert len(bench.of(Event.THERMAL_REFUSED)) == 2
    bench.node.do("clear")
    bench.look(card, RETRY_SECONDS)
    apply(bench, card, Settings(400, 600))
    assert (bench.limit_watts, bench.sm_lock_mhz) == (400, [345, 600])
    assert card.reasons()["power-limit"] == card.reasons()["sm-clock-lock"] == ""


def test_a_card_without_a_settable_limit_keeps_its_clocks(bench: Bench) -> None:
    bench.hurt("no-power-limit")
    card = bench.guard()
    assert "not supported" in card.reasons()["power-limit"]
    assert card.authority().original_watts is None
    assert card.authority().sm_clocks_mhz == SM_RANGE_MHZ
    apply(bench, card, Settings(400, 600))
    assert (bench.limit_watts, bench.sm_lock_mhz) == (ORIGINAL_WATTS, [345, 600])


def test_a_card_without_a_memory_lock_says_so_when_it_is_needed(bench: Bench) -> None:
    bench.hurt("no-memory-lock")
    card = bench.guard(Options(memory_clock_lock=True))
    assert card.authority().memory_clock_mhz == MEMORY_CLOCK_MHZ
    apply(bench, card, Settings(memory_clock_mhz=MEMORY_CLOCK_MHZ))
    assert "not supported" in card.reasons()["memory-clock-lock"]
    assert card.authority().memory_clock_mhz is None
    assert json.loads(bench.file.read_text())["memory_lock_mhz"] is None


def test_a_lock_that_the_administrator_has_named_comes_back(bench: Bench) -> None:
    card = bench.guard(Options(sm_clock_baseline_mhz=1200))
    assert card.authority().sm_clocks_mhz == (345, 1200)
    apply(bench, card, Settings(sm_clock_mhz=1400))
    assert bench.sm_lock_mhz == [345, 1200]
    apply(bench, card, Settings(sm_clock_mhz=600))
    bench.take(card.restore())
    assert bench.sm_lock_mhz == [345, 1200]


def test_a_reset_card_is_opened_anew_and_its_settings_are_set_again(bench: Bench) -> None:
    card = bench.guard()
    apply(bench, card, Settings(400, 600))
    bench.node.do("reload-driver")
    assert bench.not_seen(card).trouble is Trouble.LOST
    assert card.authority() == Authority()
    assert bench.seen(card)
    assert card.original_watts == ORIGINAL_WATTS
    apply(bench, card, Settings(400, 600))
    assert (bench.limit_watts, bench.sm_lock_mhz) == (400, [345, 600])
    bench.take(card.restore())
    assert (bench.limit_watts, bench.sm_lock_mhz) == (ORIGINAL_WATTS, None)


def test_a_card_that_is_lost_takes_nothing_down(bench: Bench) -> None:
    card = bench.guard()
    apply(bench, card, Settings(400, 600))
    bench.hurt("lost")
    assert apply(bench, card, Settings(380, 700)) == []
    assert bench.not_seen(card).trouble is Trouble.LOST
    assert set(card.reasons().values()) == {"", "the card is not open"}
    assert bench.take(card.restore()) == [Event.THERMAL_REFUSED]
    bench.node.do("clear")
    assert bench.seen(card)


def test_a_card_that_was_let_go_of_is_taken_back(bench: Bench) -> None:
    card = bench.guard()
    apply(bench, card, Settings(400))
    bench.take(card.restore())
    card.close()
    bench.node.do("reload-driver")
    assert bench.seen(card)
    apply(bench, card, Settings(400))
    assert bench.limit_watts == 400


def test_xids_are_told_once_each(bench: Bench) -> None:
    card = bench.guard()
    for xid in (31, 13):
        bench.hurt(f"xid={xid}")
    bench.look(card)
    bench.look(card)
    assert [text.split(" (")[0] for text in bench.of(Event.XID)] == [
        "GPU 0: its driver reports XID 31",
        "GPU 0: its driver reports XID 13",
    ]
    bench.node.do("reload-driver")
    bench.not_seen(card)
    bench.seen(card)
    bench.hurt("xid=79")
    bench.look(card)
    assert len(bench.of(Event.XID)) == 3


def test_a_sensor_that_fails_leaves_the_actuators(bench: Bench) -> None:
    card = bench.guard()
    bench.hurt("sensor-error")
    assert bench.not_seen(card).trouble is Trouble.SENSOR
    apply(bench, card, Settings(400))
    assert bench.limit_watts == 400


def test_a_lock_shows_in_the_clock_that_the_card_runs_at(bench: Bench) -> None:
    card = bench.guard()
    bench.node.do("load", "--gpu", "0", "--fraction", "1")
    apply(bench, card, Settings(sm_clock_mhz=600))
    wait_until(lambda: bench.shown()["sm_mhz"] == 600)
    for _ in range(5):
        bench.look(card)
    assert card.reasons()["sm-clock-lock"] == ""
