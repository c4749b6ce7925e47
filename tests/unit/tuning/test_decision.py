# SPDX-License-Identifier: Apache-2.0
"""Which profile is wanted, what is kept of the host's own, and how it comes back."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.tuning.decision import (
    Found,
    Record,
    Timer,
    Wish,
    remember,
    restoration,
    time_of_day_for,
    time_of_day_now,
)

DAY, NIGHT, CUSTOM = "gpuwarden-day", "gpuwarden-night", "virtual-guest"
BOOT, LATER_BOOT = "boot-1", "boot-2"
MORNING, EVENING = 7 * 3600.0, 19 * 3600.0
DAYS = 86400.0


def running(profile: str = CUSTOM, *, manual: bool = True) -> Found:
    return Found(profile, manual, was_running=True)


def started(profile: str = CUSTOM, *, manual: bool = False) -> Found:
    return Found(profile, manual, was_running=False)


@pytest.mark.parametrize(
    ("day", "night", "expected"),
    [
        (MORNING, EVENING - DAYS, "day"),
        (MORNING, EVENING, "night"),
        (None, EVENING, "night"),
        (MORNING, None, "day"),
        (None, None, "day"),
        (MORNING, MORNING, "day"),
    ],
)
def test_it_is_the_time_of_day_that_began_last(
    day: float | None, night: float | None, expected: str
) -> None:
    assert time_of_day_now(Timer(day), Timer(night)) == expected


@pytest.mark.parametrize("wish", [Wish.DAY, Wish.NIGHT])
def test_a_start_by_hand_gets_what_it_asks_for_at_any_hour(wish: Wish) -> None:
    for day, night in ((MORNING, EVENING), (MORNING, EVENING - DAYS)):
        assert time_of_day_for(wish, Timer(day), Timer(night)) == wish


@pytest.mark.parametrize("wish", [Wish.DAY, Wish.NIGHT, Wish.NOW])
def test_timers_that_make_up_for_missed_times_agree_on_what_it_is_now(wish: Wish) -> None:
    day, night = Timer(MORNING, fires=True), Timer(EVENING - DAYS, fires=True)
    assert time_of_day_for(wish, day, night) == "day"


def test_a_timer_that_fires_says_nothing_of_the_other_one_started_by_hand() -> None:
    day, night = Timer(MORNING, fires=True), Timer(EVENING - DAYS)
    assert time_of_day_for(Wish.NIGHT, day, night) == "night"


def test_what_was_there_before_us_is_kept_through_any_number_of_switches() -> None:
    record = remember(None, running(CUSTOM), DAY, BOOT)
    record = remember(record, running(DAY), NIGHT, BOOT)
    record = remember(record, running(NIGHT), DAY, LATER_BOOT)
    assert (record.former_profile, record.former_manual) == (CUSTOM, True)
    assert restoration(record, running(DAY), LATER_BOOT).profile == CUSTOM


def test_a_profile_that_somebody_sets_meanwhile_is_what_comes_back() -> None:
    record = remember(None, running(CUSTOM), DAY, BOOT)
    record = remember(record, running("powersave"), NIGHT, BOOT)
    assert restoration(record, running(NIGHT), BOOT).profile == "powersave"


def test_a_profile_that_somebody_has_set_since_stays() -> None:
    record = remember(None, started(), DAY, BOOT)
    plan = restoration(record, running("powersave"), BOOT)
    assert plan.profile is None
    assert not plan.stop_tuned


@pytest.mark.parametrize("crashed_in", [DAY, NIGHT])
def test_a_crash_during_a_switch_never_takes_ours_for_the_former_one(
    crashed_in: Literal["gpuwarden-day", "gpuwarden-night"],
) -> None:
    record = remember(None, running(CUSTOM), DAY, BOOT)
    record = remember(record, running(DAY), NIGHT, BOOT)  # on disk, and then no more
    assert restoration(record, running(crashed_in), LATER_BOOT).profile == CUSTOM
    again = remember(record, running(crashed_in), DAY, LATER_BOOT)
    assert again.former_profile == CUSTOM


def test_a_tuned_that_we_started_is_stopped_after_it_has_its_own_choice_back() -> None:
    record = remember(None, started(CUSTOM, manual=False), DAY, BOOT)
    plan = restoration(record, running(DAY), BOOT)
    assert (plan.profile, plan.manual, plan.stop_tuned) == (CUSTOM, False, True)


def test_a_tuned_that_runs_after_a_boot_was_not_started_by_us() -> None:
    record = remember(None, started(), DAY, BOOT)
    assert not restoration(record, running(DAY), LATER_BOOT).stop_tuned
    again = remember(record, running(DAY), NIGHT, LATER_BOOT)
    assert not again.started_tuned


def test_a_tuned_that_does_not_run_is_left_that_way() -> None:
    record = remember(None, running(CUSTOM), DAY, BOOT)
    assert restoration(record, started(DAY), BOOT).stop_tuned


def test_a_run_that_died_once_tuned_was_up_is_gone_on_with() -> None:
    begun = Record(boot_id=BOOT, started_tuned=True)
    assert remember(begun, running(CUSTOM, manual=False), DAY, BOOT).started_tuned
    assert restoration(begun, running(CUSTOM, manual=False), BOOT).stop_tuned


profiles = st.sampled_from([DAY, NIGHT, CUSTOM, "powersave", ""])


@given(st.lists(st.tuples(profiles, st.sampled_from([DAY, NIGHT])), min_size=1, max_size=8))
def test_the_last_profile_that_was_not_ours_comes_back(steps: list[tuple[str, str]]) -> None:
    """However somebody switches between our switches."""
    record: Record | None = None
    in_force, expected = "", ""
    for by_hand, target in steps:
        if record is None or by_hand not in record.ours:
            in_force = expected = by_hand
        record = remember(record, running(in_force), target, BOOT)
        record = record.model_copy(update={"ours": (target,)})
        in_force = target
    assert record is not None
    assert restoration(record, running(in_force), BOOT).profile == expected
