# SPDX-License-Identifier: Apache-2.0
import math

from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.chart.series import Moment, buckets, in_order, merged, spacing_seconds, thinned
from gpuwarden.values import ThermalState
from tests.unit.chart.histories import START_SECONDS, hot_hour, moments


def normal(at_seconds: float, celsius: float | None = None) -> Moment:
    return Moment(at_seconds, ThermalState.NORMAL, celsius)


def test_moments_come_in_order_with_what_is_no_figure_made_unknown() -> None:
    given_moments = [
        normal(2, math.nan),
        normal(math.inf, 40),
        normal(-1, 40),
        normal(1, 41),
        normal(3, 1e300),
    ]
    ordered = in_order(given_moments)
    assert [each.at_seconds for each in ordered] == [1, 2, 3]
    assert [each.celsius for each in ordered] == [41, None, None]
    assert (ordered[0].celsius_lowest, ordered[0].celsius_highest) == (41, 41)


def test_one_moment_for_several_keeps_extremes_and_the_worst_state() -> None:
    hot = Moment(1, ThermalState.CRITICAL, 90, 88, 93, 95, 600, 690, 700)
    cool = Moment(2, ThermalState.NORMAL, 70, 68, 71, None, 300, 310, 500)
    assert merged([cool, hot], 1) == Moment(1, ThermalState.CRITICAL, 80, 68, 93, 95, 450, 690, 500)


def test_buckets_are_equal_and_empty_where_nothing_is_known() -> None:
    found = buckets(in_order([normal(10, 40), normal(11, 50), normal(35, 60)]), 0, 10, 4)
    assert [each and each.celsius for each in found] == [None, 45, None, 60]


def test_a_short_history_is_drawn_as_it_is_and_a_long_one_thinned() -> None:
    hour = in_order(hot_hour())
    assert thinned(hour, 3600) == hour
    few = thinned(hour, 100)
    assert 99 <= len(few) <= 100
    assert max(each.celsius_highest or 0 for each in few) == max(
        each.celsius_highest or 0 for each in hour
    )
    assert ThermalState.CRITICAL in {each.state for each in few}


def test_moments_that_all_bear_the_same_time_become_one() -> None:
    assert len(thinned(in_order([normal(START_SECONDS, 40)] * 20), 10)) == 1


def test_spacing_is_the_usual_step() -> None:
    assert spacing_seconds([normal(n) for n in (0, 2, 4, 6, 60)]) == 2
    assert spacing_seconds([normal(1)]) == 1


@given(st.lists(moments), st.integers(2, 20))
def test_whatever_the_history_thinning_keeps_order_and_number(
    history: list[Moment], at_most: int
) -> None:
    few = thinned(in_order(history), at_most)
    assert len(few) <= at_most
    assert few == sorted(few, key=lambda each: each.at_seconds)
