# SPDX-License-Identifier: Apache-2.0
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.chart.scale import Scale, bounds, ticks, time_ticks


def test_a_scale_maps_both_ends_and_holds_on_to_them() -> None:
    scale = Scale(20, 100, 440, 40)
    assert [scale(value) for value in (20, 60, 100, 200, -5)] == [440, 240, 40, 40, 440]


@pytest.mark.parametrize(
    ("low", "high", "about", "found"),
    [
        (40, 90, 5, [40, 50, 60, 70, 80, 90]),
        (0, 756, 5, [0, 200, 400, 600]),
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round(low: float, high: float, about: int, found: list[float]) -> None:
    assert ticks(low, high, about) == pytest.approx(found)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 12))
def test_ticks_lie_on_the_axis_and_are_about_as_many(low: float, span: float, about: int) -> None:
    found = ticks(low, low + span, about)
    assert len(found) <= about + 2
    assert all(low - span * 1e-3 <= each <= low + span * 1.001 for each in found)


def test_bounds_are_round_and_leave_room() -> None:
    assert bounds([41, 85], 5) == (40, 90)
    assert bounds([45, 45], 5) == (40, 50)


def test_times_of_day_are_round_where_they_are_shown() -> None:
    start = 1_800_000_123.0
    nepal = time_ticks(start, start + 3600, 10, ZoneInfo("Asia/Kathmandu"))
    assert [written for _, written in nepal][:3] == ["13:50", "14:00", "14:10"]
    assert time_ticks(start, start + 20, 10, UTC)[0][1] == "08:02:04"
    assert time_ticks(start, start + 864_000, 5, UTC)[0][1] == "2027-01-16"


def test_a_simulation_counts_from_its_start() -> None:
    assert time_ticks(0, 3600, 10, None)[:3] == [(0, "0"), (600, "10"), (1200, "20")]
    assert [written for _, written in time_ticks(0, 90, 3, None)] == [
        "0:00",
        "0:30",
        "1:00",
        "1:30",
    ]


@given(st.floats(0, 1e11), st.floats(1e-3, 1e11), st.none() | st.just(UTC))
def test_there_are_never_many_times(start: float, span: float, zone: None) -> None:
    end = min(start + span, 1.1e11)
    assert len(time_ticks(start, max(end, start + 1), 10, zone)) <= 12
