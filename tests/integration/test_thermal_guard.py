# SPDX-License-Identifier: Apache-2.0
"""The thermal guard's process, from the card's heat to the card's limit and back."""

import contextlib
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.control.requests import ThermalStatusAnswer
from gpuwarden.values import ThermalState
from tests.integration.hot_cards import (
    ALERT_LOCK_MHZ,
    ALERT_WATTS,
    LEAST_WATTS,
    ORIGINAL_WATTS,
    REGULATED,
    STEPPED,
    WARM_LOAD,
    Cards,
    hot_cards,
    undisturbed_neighbour,
)
from tests.waiting import wait_until

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL
KILLS = 12
SEED = 20261121
LONGEST_LIFE_SECONDS = 1.0
STOP_SECONDS = 10.0


@pytest.fixture
def cards(tmp_path: Path, library: Path) -> Iterator[Cards]:
    with hot_cards(tmp_path, library) as made:
        yield made


# --- heat and its end


def test_heat_lowers_the_limit_and_its_end_brings_the_original_back(cards: Cards) -> None:
    with undisturbed_neighbour(cards), cards.guarded(0):
        cool = cards.reaches(NORMAL)
        assert (cool.original_power_limit_watts, cool.batch_limit) == (ORIGINAL_WATTS, None)
        cards.load(WARM_LOAD)
        cards.wait_for_limit(ALERT_WATTS)
        wait_until(lambda: cards.sm_lock_mhz == ALERT_LOCK_MHZ)
        hot = cards.thermal(0, lambda data: data.sm_clock_lock_mhz == ALERT_LOCK_MHZ[1])
        assert (hot.state, hot.batch_limit, hot.admission) == (ALERT, 1, "open")
        hot = cards.thermal(0, lambda data: data.power_limit_watts == ALERT_WATTS)
        assert hot.original_power_limit_watts == ORIGINAL_WATTS
        cards.load(0.0)
        back = cards.reaches(NORMAL)
        assert (back.batch_limit, back.throttles, back.recoveries) == (None, 1, 1)
        assert {"alert", "normal"} <= set(back.state_seconds)
        cards.wait_for_limit(ORIGINAL_WATTS)
        wait_until(lambda: cards.sm_lock_mhz is None)
    assert cards.record() is None
    assert cards.journal.changes() == ["normal", "alert", "recovering", "normal"]


def test_the_regulator_holds_a_loaded_card_under_alert_and_lets_it_go(cards: Cards) -> None:
    cards.configure(REGULATED)
    with cards.guarded(0):
        cards.reaches(NORMAL)
        cards.load(1.0)
        cards.reaches(ALERT)
        wait_until(lambda: cards.card()["die_celsius"] < 55.5 and cards.card()["watts"] > 300)
        held = cards.reaches(ALERT)
        assert held.batch_limit == 3
        assert LEAST_WATTS < cards.limit_watts < ORIGINAL_WATTS
        assert cards.sm_lock_mhz is None
        cards.load(0.0)
        cards.wait_for_limit(ORIGINAL_WATTS)
        assert cards.reaches(NORMAL).batch_limit is None


def test_what_happens_is_in_the_journal_field_by_field(cards: Cards) -> None:
    with cards.guarded(0):
        uuid = cards.reaches(NORMAL).uuid
        cards.load(WARM_LOAD)
        cards.wait_for_limit(ALERT_WATTS)
        written = cards.journal.wait_for("thermal-write")[0]
        changed = cards.journal.wait_for("thermal-state", count=2)[1]
    for entry in (written, changed):
        assert (entry["GPU"], entry["GPU_UUID"]) == ("0", uuid)
        assert len(entry["MESSAGE_ID"]) == 32
    assert written["MESSAGE"] == "GPU 0: power limit 700 -> 490 W"
    assert written["POWER_LIMIT_WATTS"] == "490"
    assert (changed["STATE_OLD"], changed["STATE_NEW"]) == ("normal", "alert")
    assert int(changed["TEMPERATURE_CELSIUS"]) >= 55
    assert (changed["POWER_LIMIT_WATTS"], changed["PRIORITY"]) == ("700", "4")
    assert changed["REASON"].endswith("alert is 55 C")


def test_a_card_that_reaches_critical_draws_the_least_and_gets_no_work(cards: Cards) -> None:
    cards.configure(STEPPED.replace("55", "54") + "critical_celsius = 55\n")
    with cards.guarded(0):
        cards.reaches(NORMAL)
        cards.load(1.0)
        assert cards.reaches(CRITICAL).admission == "paused"
        cards.wait_for_limit(LEAST_WATTS)
        cards.load(0.0)
        cards.wait_for_limit(ORIGINAL_WATTS)
        assert cards.reaches(NORMAL).admission == "open"


# --- the ends of a guard


def test_a_clean_stop_of_a_hot_card_keeps_it_safe_and_the_next_start_goes_on(
    cards: Cards,
) -> None:
    with cards.guarded(0):
        cards.becomes_hot()
    assert cards.limit_watts == ALERT_WATTS
    (said,) = cards.journal.wait_for("thermal-restored")
    assert "it is still hot: it keeps 490 W" in said["MESSAGE"]
    assert "-pl 700" in said["MESSAGE"]
    record = cards.record() or {}
    assert (record["original_milliwatts"], record["ours_milliwatts"]) == (700_000, 490_000)
    with cards.guarded(0):
        assert cards.reaches(ALERT).original_power_limit_watts == ORIGINAL_WATTS
        (went_on,) = cards.journal.wait_for("thermal-originals")
        assert "490 W is this guard's: 700 W comes back" in went_on["MESSAGE"]
        cards.load(0.0)
        cards.wait_for_limit(ORIGINAL_WATTS)
    assert cards.record() is None


def test_a_clean_stop_of_a_cool_card_restores_it(cards: Cards) -> None:
    cards.configure(STEPPED.replace("safe_seconds = 1", "safe_seconds = 3600"))
    with cards.guarded(0):
        cards.becomes_hot()
        cards.load(0.0)
        cards.reaches(ThermalState.RECOVERING)
        assert cards.limit_watts == ALERT_WATTS
    assert (cards.limit_watts, cards.sm_lock_mhz) == (ORIGINAL_WATTS, None)
    assert cards.record() is None
    assert "limit 700 W" in cards.journal.wait_for("thermal-restored")[0]["MESSAGE"]


def test_a_guard_that_is_killed_while_hot_goes_on_from_what_it_has_set(cards: Cards) -> None:
    with cards.guard_process(0) as guard:
        cards.becomes_hot()
        guard.kill()
        guard.wait()
    assert cards.limit_watts == ALERT_WATTS
    with cards.guarded(0):
        data = cards.thermal(0, lambda data: data.throttles == 1 and data.batch_limit == 1)
        assert data.original_power_limit_watts == ORIGINAL_WATTS
        cards.load(0.0)
        cards.wait_for_limit(ORIGINAL_WATTS)


def test_kills_at_any_moment_never_make_ours_the_original(cards: Cards) -> None:
    chance = random.Random(SEED)
    for _ in range(KILLS):
        cards.load(chance.choice((0.0, WARM_LOAD, 1.0)))
        with cards.guard_process(0) as guard:
            with contextlib.suppress(subprocess.TimeoutExpired):
                guard.wait(chance.uniform(0.2, 0.2 + LONGEST_LIFE_SECONDS))
            guard.kill()
            assert guard.wait() == -signal.SIGKILL
        assert cards.limit_watts <= ORIGINAL_WATTS
        record = cards.record()
        if cards.limit_watts != ORIGINAL_WATTS:
            assert record is not None
        assert record is None or record["original_milliwatts"] == 700_000
    cards.load(0.0)
    with cards.guarded(0):
        assert cards.reaches(NORMAL).original_power_limit_watts == ORIGINAL_WATTS
        cards.wait_for_limit(ORIGINAL_WATTS)
    assert (cards.limit_watts, cards.sm_lock_mhz, cards.record()) == (ORIGINAL_WATTS, None, None)


# --- faults


@pytest.mark.parametrize(
    ("fault", "state"), [("lost", ThermalState.LOST), ("sensor-error", ThermalState.BLIND)]
)
def test_a_card_that_cannot_be_seen_is_said_and_comes_back(
    cards: Cards, fault: str, state: ThermalState
) -> None:
    with undisturbed_neighbour(cards), cards.guarded(0):
        cards.reaches(NORMAL)
        cards.hurt(fault)
        assert cards.reaches(state).temperature_celsius is None
        (said,) = cards.journal.wait_for("sensor-lost")
        assert "nvml" in said["REASON"]
        if state is ThermalState.BLIND:
            cards.wait_for_limit(ALERT_WATTS)
        cards.mend()
        cards.reaches(NORMAL)
        cards.journal.wait_for("sensor-regained")
        cards.wait_for_limit(ORIGINAL_WATTS)


def test_a_sensor_that_fails_while_hot_leaves_the_card_cooled_over_a_restart(
    cards: Cards,
) -> None:
    with cards.guarded(0):
        cards.becomes_hot()
        cards.hurt("sensor-error")
        cards.reaches(ThermalState.BLIND)
        wait_until(lambda: cards.sm_lock_mhz == ALERT_LOCK_MHZ)
    assert cards.limit_watts == ALERT_WATTS
    with cards.guarded(0):
        cards.thermal(0, lambda data: data.original_power_limit_watts == ORIGINAL_WATTS)
        sequence = cards.sequence(0)
        wait_until(lambda: cards.sequence(0) >= sequence + 2)
        assert (cards.limit_watts, cards.sm_lock_mhz) == (ALERT_WATTS, ALERT_LOCK_MHZ)


def test_without_the_power_limit_the_clock_is_locked(cards: Cards) -> None:
    cards.hurt("no-power-limit")
    with undisturbed_neighbour(cards), cards.guarded(0):
        cool = cards.thermal(0, lambda data: data.actuators.get("power-limit", "") != "")
        assert "not supported" in cool.actuators["power-limit"]
        assert cool.actuators["sm-clock-lock"] == ""
        cards.load(WARM_LOAD)
        hot = cards.thermal(0, lambda data: data.sm_clock_lock_mhz == ALERT_LOCK_MHZ[1])
        assert (hot.state, hot.batch_limit, hot.dispatch_duty) == (ALERT, 1, 1.0)
        assert cards.sm_lock_mhz == ALERT_LOCK_MHZ
        cards.load(0.0)
        cards.reaches(NORMAL)
        wait_until(lambda: cards.sm_lock_mhz is None)


def test_without_any_permission_the_gateway_is_told_to_give_less(cards: Cards) -> None:
    with undisturbed_neighbour(cards), cards.guarded(0):
        cards.reaches(NORMAL)
        cards.hurt("no-permission")
        cards.load(WARM_LOAD)
        data = cards.thermal(0, lambda data: data.dispatch_duty < 1)
        assert (data.state, data.batch_limit) == (ALERT, 1)
        assert "permission denied" in data.actuators["power-limit"]
        assert "permission denied" in data.actuators["sm-clock-lock"]
        refused = cards.journal.wait_for("thermal-refused", count=2)
        assert all("permission denied" in entry["REASON"] for entry in refused)
        assert cards.limit_watts == ORIGINAL_WATTS


def test_a_memory_clock_that_cannot_be_locked_is_said_and_the_rest_is_done(
    cards: Cards,
) -> None:
    cards.configure(STEPPED + "memory_clock_lock = true\n")
    cards.hurt("no-memory-lock")
    with undisturbed_neighbour(cards), cards.guarded(0):
        cards.reaches(NORMAL)
        cards.load(WARM_LOAD)
        data = cards.thermal(0, lambda data: data.actuators.get("memory-clock-lock", "") != "")
        assert "not supported" in data.actuators["memory-clock-lock"]
        cards.wait_for_limit(ALERT_WATTS)
        wait_until(lambda: cards.sm_lock_mhz == ALERT_LOCK_MHZ)


def test_the_memory_clock_is_locked_where_that_was_asked_for(cards: Cards) -> None:
    cards.configure(STEPPED + "memory_clock_lock = true\n")
    with cards.guarded(0):
        cards.reaches(NORMAL)
        cards.load(WARM_LOAD)
        wait_until(lambda: cards.card()["memory_lock_mhz"])
        cards.load(0.0)
        cards.reaches(NORMAL)
        wait_until(lambda: cards.card()["memory_lock_mhz"] is None)


def test_somebody_elses_limit_is_the_ceiling_and_comes_back(cards: Cards) -> None:
    with undisturbed_neighbour(cards), cards.guarded(0):
        cards.becomes_hot()
        cards.hurt("external-limit", 600)
        (said,) = cards.journal.wait_for("thermal-outside-change")
        assert "490 -> 600 W" in said["MESSAGE"]
        assert said["POWER_LIMIT_WATTS"] == "600"
        cards.wait_for_limit(0.7 * 600)
        assert cards.thermal(0, lambda data: data.original_power_limit_watts == 600)
        cards.load(0.0)
        cards.wait_for_limit(600)
    assert cards.limit_watts == 600


def test_three_limits_of_somebody_else_are_a_fight(cards: Cards) -> None:
    with cards.guarded(0):
        cards.reaches(NORMAL)
        for number, watts in enumerate((650, 600, 550), 1):
            assert cards.journal.of("thermal-outside-fight") == []
            cards.hurt("external-limit", watts)
            cards.journal.wait_for("thermal-outside-change", count=number)
        (said,) = cards.journal.wait_for("thermal-outside-fight")
        assert "3 times within 10 min" in said["MESSAGE"]


def test_an_xid_is_told(cards: Cards) -> None:
    with undisturbed_neighbour(cards), cards.guarded(0):
        cards.reaches(NORMAL)
        cards.hurt("xid", 79)
        (said,) = cards.journal.wait_for("xid")
        assert said["XID"] == "79"
        assert cards.journal.of("xid", 1) == []


def test_a_driver_that_hangs_is_blind_and_a_stop_is_bounded_and_said(cards: Cards) -> None:
    with undisturbed_neighbour(cards), cards.guarded(0) as guard:
        cards.reaches(NORMAL)
        cards.hurt("hang")
        data = cards.reaches(ThermalState.BLIND)
        assert "the driver has not answered for 3 s" in data.reason
        status = ThermalStatusAnswer.model_validate(cards.ask_guard(0, "status"))
        assert status.data.state is ThermalState.BLIND
        guard.terminate()
        (said,) = cards.journal.wait_for("thermal-refused")
        assert "what was set could not be put back" in said["MESSAGE"]
        cards.mend()  # a process in the driver's hands ends only when that lets go
        assert guard.wait(STOP_SECONDS) == 0
