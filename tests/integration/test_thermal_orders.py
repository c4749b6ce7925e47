# SPDX-License-Identifier: Apache-2.0
"""What a thermal guard is asked over its control socket, and does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.control.requests import HistoryAnswer, Override, ThermalStatusAnswer
from gpuwarden.control.socket import ControlError
from gpuwarden.values import ThermalState
from tests.integration.hot_cards import (
    ALERT_WATTS,
    LEAST_WATTS,
    ORIGINAL_WATTS,
    STEPPED,
    WARM_LOAD,
    Cards,
    hot_cards,
)
from tests.waiting import wait_until

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL


@pytest.fixture
def cards(tmp_path: Path, library: Path) -> Iterator[Cards]:
    with hot_cards(tmp_path, library) as made:
        yield made


def test_an_override_is_set_outlives_a_kill_and_is_cleared(cards: Cards) -> None:
    with cards.guard_process(0) as guard:
        cards.reaches(NORMAL)
        answer = cards.ask_guard(0, "override", state="critical", seconds=600)
        assert Override.model_validate(answer).state == "critical"
        assert "override: critical until" in cards.reaches(CRITICAL).reason
        cards.wait_for_limit(LEAST_WATTS)
        guard.kill()
        guard.wait()
    with cards.guarded(0):
        cards.reaches(CRITICAL)
        cards.ask_guard(0, "clear-override")
        cards.reaches(NORMAL)
        cards.wait_for_limit(ORIGINAL_WATTS)
    assert cards.journal.of("override-started")
    assert cards.journal.of("override-ended")


def test_a_clean_stop_under_an_override_restores_a_cool_card(cards: Cards) -> None:
    with cards.guarded(0):
        cards.reaches(NORMAL)
        cards.ask_guard(0, "override", state="alert", seconds=600)
        cards.wait_for_limit(ALERT_WATTS)
    assert cards.limit_watts == ORIGINAL_WATTS


def test_a_released_card_can_be_reset_and_is_taken_back(cards: Cards) -> None:
    with cards.guarded(0):
        cards.becomes_hot()
        cards.load(0.0)
        cards.reaches(NORMAL)
        cards.ask_guard(0, "release", seconds=600)
        assert cards.reaches(ThermalState.RELEASED).admission == "paused"
        cards.ask(command="reload-driver")
        status = ThermalStatusAnswer.model_validate(cards.ask_guard(0, "status"))
        assert status.override is not None
        assert status.override.state == "released"
        cards.ask_guard(0, "clear-override")
        cards.reaches(NORMAL)
    assert cards.journal.of("card-released")
    assert cards.journal.of("card-taken-back")
    assert cards.journal.of("sensor-lost") == []


def test_a_release_ends_by_itself(cards: Cards) -> None:
    with cards.guarded(0):
        cards.reaches(NORMAL)
        cards.ask_guard(0, "release", seconds=1)
        cards.reaches(ThermalState.RELEASED)
        cards.reaches(NORMAL)


def test_history_is_answered_second_by_second(cards: Cards) -> None:
    with cards.guarded(0):
        cards.reaches(NORMAL)
        cards.load(WARM_LOAD)

        def rows() -> HistoryAnswer | None:
            answer = HistoryAnswer.model_validate(cards.ask_guard(0, "history"))
            return answer if len(answer.rows) >= 4 else None

        history = wait_until(rows)
    moments = [row.unix_microseconds for row in history.rows]
    assert moments == sorted(set(moments))
    assert max(row.celsius_highest for row in history.rows) >= 55
    assert history.rows[-1].memory_celsius is not None


def test_a_reload_is_followed_and_one_that_does_not_suit_the_card_is_not(cards: Cards) -> None:
    with cards.guarded(0):
        cards.reaches(NORMAL)
        cards.configure(STEPPED + "critical_celsius = 93\n")
        with pytest.raises(ControlError, match="5 C below the card's shutdown") as raised:
            cards.ask_guard(0, "reload")
        assert raised.value.kind == "InvalidArgument"
        assert "maximum operating 87 C, slowdown 89 C, shutdown 95 C" in str(raised.value)
        assert cards.thermal(0, lambda data: True).critical_celsius == 85
        cards.configure(STEPPED.replace("55", "40").replace("50", "35"))
        cards.ask_guard(0, "reload")
        assert cards.reaches(ALERT).alert_celsius == 40
        cards.wait_for_limit(ALERT_WATTS)


def test_thresholds_that_do_not_suit_the_card_at_the_start_give_way_to_its_own(
    cards: Cards,
) -> None:
    cards.configure("[thermal]\ncritical_celsius = 94\n")
    with cards.guarded(0):
        data = cards.reaches(NORMAL)
        assert data.critical_celsius == 85
        assert "the configured thresholds are refused" in data.reason
        (said,) = cards.journal.wait_for("thermal-thresholds-refused")
        assert "critical_celsius 94 is above 90" in said["REASON"]
