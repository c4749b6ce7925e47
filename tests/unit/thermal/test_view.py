# SPDX-License-Identifier: Apache-2.0
"""What the guard knows of its card: states, blindness, counters, since."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.thermal.observation import Observation, Trouble, implausible
from gpuwarden.thermal.view import (
    BLIND_AFTER_SECONDS,
    STARTING,
    View,
    aged,
    blindness,
    judged,
    take,
    taken_back,
)
from gpuwarden.values import ThermalState
from tests.unit.thermal.readings import CARD, judgement, not_seen, seen, view_of

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL
RECOVERING, RELEASED = ThermalState.RECOVERING, ThermalState.RELEASED
BLIND, LOST = ThermalState.BLIND, ThermalState.LOST


def through(*states: ThermalState, view: View | None = None) -> View:
    """A card that goes from one state to the next, one a microsecond."""
    view = view or View(0, 0.0, 0)
    for moment, state in enumerate(states, 1):
        view = judged(view, judgement(state), moment)
    return view


def counted(*states: ThermalState) -> tuple[int, int]:
    view = through(*states)
    return view.throttles, view.recoveries


def test_nothing_is_known_at_the_start_and_one_request_at_a_time_is_safe() -> None:
    view = View(0, 10.0, 0)
    assert (view.state, view.judgement.reason) == (BLIND, "starting")
    assert STARTING.settings.batch_limit == 1
    assert blindness(view, 12.9) == (BLIND, "starting")


def test_a_driver_that_never_answered_is_blindness_after_three_seconds() -> None:
    view = View(0, 10.0, 0)
    assert blindness(view, 13.0) == (BLIND, "the driver has not answered for 3 s")
    assert blindness(view, 71.4) == (BLIND, "the driver has not answered for 61 s")


def test_silence_of_three_seconds_is_blindness() -> None:
    view = view_of(50)
    assert blindness(view, 1.0 + BLIND_AFTER_SECONDS - 0.1) is None
    found = blindness(view, 1.0 + BLIND_AFTER_SECONDS)
    assert found == (BLIND, "the driver has not answered for 3 s")


def test_a_sensor_error_is_borne_for_three_seconds() -> None:
    view = take(view_of(50), not_seen(Trouble.SENSOR, "unknown error"), 2.0)
    assert blindness(view, 3.9) is None
    assert view.seen is not None
    assert blindness(view, 4.0) == (BLIND, "unknown error")


def test_a_sensor_that_fails_at_the_first_look_is_blindness_at_once() -> None:
    view = take(View(0, 0.0, 0), not_seen(Trouble.SENSOR, "no sensor"), 0.1)
    assert blindness(view, 0.1) == (BLIND, "no sensor")


def test_a_blind_card_shows_no_old_reading() -> None:
    assert judged(view_of(50), judgement(BLIND), 2).seen is None
    assert judged(view_of(50), judgement(LOST), 2).seen is None
    assert judged(view_of(50), judgement(RELEASED), 2).seen is None
    assert judged(view_of(50), judgement(CRITICAL), 2).seen is not None


def test_sight_comes_back_with_the_next_sample() -> None:
    blind = judged(view_of(50), judgement(BLIND), 2)
    assert blindness(blind, 60.0) is not None
    assert blindness(take(blind, seen(51), 60.0), 60.0) is None


def test_a_lost_card_is_lost_at_once_and_until_seen() -> None:
    view = take(view_of(50), not_seen(Trouble.LOST, "fell off the bus"), 1.2)
    assert blindness(view, 1.2) == (LOST, "fell off the bus")
    assert blindness(view, 500.0) == (LOST, "fell off the bus")
    assert blindness(take(view, seen(50), 500.2), 500.2) is None


@pytest.mark.parametrize("trouble", [Trouble.NO_DRIVER, Trouble.NO_PLAN])
def test_without_driver_or_plan_it_is_blind_at_once_and_says_why(trouble: Trouble) -> None:
    assert blindness(take(view_of(50), not_seen(trouble, "why"), 1.2), 1.2) == (BLIND, "why")


def test_a_card_that_is_taken_back_has_the_usual_time_to_be_read() -> None:
    released = judged(
        take(view_of(50), not_seen(Trouble.LOST), 1.2), judgement(RELEASED, "released"), 2
    )
    back = taken_back(released, 600.0)
    assert blindness(back, 602.9) is None
    assert blindness(back, 603.0) == (BLIND, "the driver has not answered for 3 s")


def test_the_card_is_named_whether_or_not_it_answers() -> None:
    assert take(View(0, 0.0, 0), not_seen(Trouble.LOST), 1.0).card == CARD


def test_since_is_the_moment_of_the_last_change() -> None:
    assert through(NORMAL, NORMAL, ALERT, ALERT, ALERT).since_unix_microseconds == 3


def test_a_throttle_is_counted_once_from_normal_to_normal() -> None:
    assert counted(NORMAL, NORMAL) == (0, 0)
    assert counted(NORMAL, ALERT, CRITICAL, ALERT) == (1, 0)
    assert counted(NORMAL, ALERT, RECOVERING, ALERT, RECOVERING, NORMAL) == (1, 1)
    assert counted(NORMAL, CRITICAL, NORMAL, ALERT, RECOVERING, NORMAL) == (2, 2)


def test_blindness_meanwhile_changes_no_count() -> None:
    assert counted(NORMAL, BLIND, NORMAL, LOST, NORMAL, RELEASED, NORMAL) == (0, 0)
    assert counted(NORMAL, ALERT, BLIND, ALERT, BLIND, NORMAL) == (1, 1)


def test_what_a_former_life_has_held_is_not_counted_again() -> None:
    view = View(0, 0.0, 0, throttles=3, recoveries=2, held=True)
    assert through(ALERT, view=view).throttles == 3
    assert through(ALERT, NORMAL, view=view).recoveries == 3


def test_what_held_the_clocks_down_is_charged_with_the_time_until_the_next_look() -> None:
    capped = seen(50, reasons=("software-power-cap", "idle"))
    view = take(View(0, 0.0, 0), capped, 1.0)
    assert view.throttle_seconds == {}
    view = take(view, seen(50), 1.5)
    view = take(view, capped, 9.0)
    assert view.throttle_seconds == {"software-power-cap": 0.5}
    assert take(view, capped, 9.0 + BLIND_AFTER_SECONDS + 1).throttle_seconds == {
        "software-power-cap": 0.5  # nobody has seen what was meanwhile
    }


def test_the_time_in_each_state_is_counted() -> None:
    view = aged(through(ALERT), 2.0)
    view = aged(through(NORMAL, view=view), 3.0)
    assert aged(view, 1.0).state_seconds == {"alert": 2.0, "normal": 4.0}


def test_what_no_die_can_have_is_no_reading() -> None:
    assert implausible(45) == ""
    for reading in (None, 0, -5, 131, 255):
        assert implausible(reading)


observations = st.one_of(
    st.builds(seen, st.floats(1, 130), st.none() | st.floats(1, 130)),
    st.builds(not_seen, st.sampled_from(Trouble)),
)


@given(st.lists(observations, min_size=1, max_size=30), st.floats(0.01, 5))
def test_no_reading_is_trusted_for_longer_than_three_seconds(
    looks: list[Observation], period: float
) -> None:
    view = View(0, 0.0, 0)
    for number, observation in enumerate(looks, 1):
        now = number * period
        view = take(view, observation, now)
        found = blindness(view, now)
        if found is not None:
            assert found[0] in (BLIND, LOST)
            assert found[1]
            view = judged(view, judgement(*found), number)
            assert view.seen is None
        else:
            assert view.seen is not None
            assert now - view.seen_at < BLIND_AFTER_SECONDS
            view = judged(view, judgement(NORMAL), number)
