# SPDX-License-Identifier: Apache-2.0
import csv
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.thermal.plausibility import (
    COOLER_REFUSALS,
    FORGOTTEN_AFTER_SECONDS,
    HOTTER_REFUSALS,
    Jumps,
    MarginCheck,
)

H200_STEP = Path(__file__).parents[1] / "data" / "h200_step.csv"
H200_WATTS = 700.0
PERIOD_SECONDS = 0.2


def measured() -> list[tuple[float, float, float, float]]:
    """Seconds, die, memory, watts (NVML's average) of a real card through load steps."""
    with H200_STEP.open(encoding="ascii", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        (float(r["t_s"]), float(r["gpu_c"]), float(r["hbm_c"]), float(r["power_w"])) for r in rows
    ]


def instantaneous(rows: list[tuple[float, float, float, float]]) -> dict[float, float]:
    """The watts of each moment, as the duty cycle of the measurement made them."""
    with H200_STEP.open(encoding="ascii", newline="") as stream:
        duty = {float(r["t_s"]): float(r["duty"]) for r in csv.DictReader(stream)}
    on = {0: 122.0, 1: 692.0}
    return {t: on[round(duty[t]) if duty[t] != 0.5 else int(t * 10) % 2] for t, *_ in rows}


def doubts(rows: list[tuple[float, float, float | None]]) -> list[str]:
    jumps = Jumps()
    found = (jumps.doubt(at, celsius, watts, H200_WATTS) for at, celsius, watts in rows)
    return [text for text in found if text]


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("sensor", [1, 2])
def test_a_real_load_step_passes_whichever_samples_are_taken(every: int, sensor: int) -> None:
    rows = measured()
    for start in range(every):
        taken = [(row[0], row[sensor], row[3]) for row in rows[start::every]]
        assert max(abs(b[1] - a[1]) for a, b in pairwise(taken)) >= (9 if sensor == 1 else 2)
        assert doubts(list(taken)) == []


@pytest.mark.parametrize("every", [1, 5])
def test_a_real_load_step_passes_with_the_watts_of_the_moment(every: int) -> None:
    rows = measured()
    watts = instantaneous(rows)
    for start in range(every):
        assert doubts([(row[0], row[1], watts[row[0]]) for row in rows[start::every]]) == []


def test_a_real_load_step_passes_without_any_watts() -> None:
    assert doubts([(row[0], row[1], None) for row in measured()]) == []


def steady(jumps: Jumps, celsius: float, samples: int = 20, start: float = 0.0) -> float:
    """A card at constant power and temperature; the moment after."""
    at = start
    for _ in range(samples):
        assert jumps.doubt(at, celsius, 300.0, H200_WATTS) == ""
        at += PERIOD_SECONDS
    return at


@pytest.mark.parametrize("celsius", [20.0, 120.0])
def test_a_single_reading_out_of_nowhere_is_refused(celsius: float) -> None:
    jumps = Jumps()
    at = steady(jumps, 60.0)
    doubt = jumps.doubt(at, celsius, 300.0, H200_WATTS)
    assert doubt == (
        f"the sensor went from 60 to {celsius:.0f} C within 0.2 s, "
        "which no change of power explains"
    )
    assert jumps.last_celsius == 60
    steady(jumps, 60.0, start=at + PERIOD_SECONDS)


@pytest.mark.parametrize(
    ("celsius", "refusals"), [(120.0, HOTTER_REFUSALS), (20.0, COOLER_REFUSALS)]
)
def test_a_level_that_lasts_is_taken_a_hotter_one_sooner(celsius: float, refusals: int) -> None:
    jumps = Jumps()
    at = steady(jumps, 60.0)
    refused = 0
    while jumps.doubt(at, celsius, 300.0, H200_WATTS):
        refused += 1
        at += PERIOD_SECONDS
    assert refused == min(refusals, FORGOTTEN_AFTER_SECONDS // PERIOD_SECONDS)
    steady(jumps, celsius, start=at + PERIOD_SECONDS)


def test_a_card_that_swings_cannot_hide_its_peaks() -> None:
    jumps = Jumps()
    at = steady(jumps, 45.0)
    peaks_seen = 0
    for _ in range(10):
        peaks_seen += jumps.doubt(at, 75.0, 300.0, H200_WATTS) == ""
        at += PERIOD_SECONDS
        jumps.doubt(at, 45.0, 300.0, H200_WATTS)
        at += PERIOD_SECONDS
    assert peaks_seen >= 7


def test_after_a_gap_anything_may_have_happened() -> None:
    jumps = Jumps()
    at = steady(jumps, 60.0)
    assert jumps.doubt(at + 5, 20.0, 300.0, H200_WATTS) == ""


@given(
    st.lists(
        st.tuples(st.floats(0.05, 1.0), st.floats(1, 130), st.none() | st.floats(0, 1000)),
        min_size=1,
        max_size=60,
    ),
    st.none() | st.floats(30, 1000),
)
def test_no_refusal_lasts_until_the_card_counts_as_blind(
    readings: list[tuple[float, float, float | None]], full_watts: float | None
) -> None:
    jumps = Jumps()
    at = believed_at = 100.0
    for period, celsius, watts in readings:
        at += period
        if jumps.doubt(at, celsius, watts, full_watts):
            assert at - believed_at <= FORGOTTEN_AFTER_SECONDS
        else:
            believed_at = at
            assert jumps.last_celsius == celsius


def test_a_margin_that_says_hotter_is_heeded_when_it_goes_on_saying_so() -> None:
    check = MarginCheck()
    answers = [check.hotter_celsius(40, 42, 17, 87, 95) for _ in range(4)]
    assert answers == [None, None, 70, 70]
    assert check.hotter_celsius(68, 60, 17, 87, 95) is None


@pytest.mark.parametrize(
    ("die", "memory", "margin", "maximum", "memory_maximum"),
    [
        (38, 36, 49, 87, 95),  # a real H200 at rest
        (45, 80, 16, 87, 95),  # the margin is the memory's
        (60, None, None, 87, None),  # an older driver
        (60, None, 10, None, None),  # a card that doesn't name its limit
        (60, None, 40, 87, None),  # the margin says cooler: the sensor is the hotter one
    ],
)
def test_a_margin_that_agrees_or_says_nothing_changes_nothing(
    die: float,
    memory: float | None,
    margin: float | None,
    maximum: float | None,
    memory_maximum: float | None,
) -> None:
    check = MarginCheck()
    for _ in range(5):
        assert check.hotter_celsius(die, memory, margin, maximum, memory_maximum) is None
