# SPDX-License-Identifier: Apache-2.0
"""A difference is told from noise as surely as is said, and no more often."""

import random

import pytest

from gpuwarden.baseline.noise import LEAST_VALUES, difference, student_quantile


@pytest.mark.parametrize(
    ("confidence", "freedom", "quantile"),
    [  # any table of Student's t, two sides
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 10, 2.228),
        (0.99, 5, 4.032),
        (0.999, 22, 3.792),
        (0.95, 1000, 1.962),
    ],
)
def test_students_quantiles_are_those_of_the_tables(
    confidence: float, freedom: float, quantile: float
) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(quantile, abs=0.001)


def series(chance: random.Random, mean: float, resemblance: float) -> list[float]:
    """Twelve windows, each like the one before by so much."""
    deviation, found = chance.gauss(0, 1), []
    for _ in range(12):
        new = chance.gauss(0, (1 - resemblance**2) ** 0.5)
        deviation = resemblance * deviation + new
        found.append(mean + deviation)
    return found


def told(shift: float, resemblance: float) -> float:
    """How often in 400 pairs a difference is told at 95 %."""
    chance = random.Random(8)
    found = 0
    for _ in range(400):
        a, b = series(chance, 10, resemblance), series(chance, 10 + shift, resemblance)
        result = difference(a, b, 0.95)
        assert result is not None
        found += result.can_be_told
    return found / 400


def test_of_twice_the_same_at_most_one_in_twenty_is_told_apart() -> None:
    assert told(0.0, 0.0) <= 0.05


def test_windows_that_resemble_their_neighbours_are_not_taken_for_independent() -> None:
    assert told(0.0, 0.6) <= 0.12  # Welch's test alone: 0.34


def test_what_is_three_times_the_noise_is_nearly_always_told() -> None:
    assert told(3.0, 0.0) > 0.99


def test_too_few_windows_say_nothing() -> None:
    few = [1.0] * (LEAST_VALUES - 1)
    assert difference(few, [2.0] * 12, 0.95) is None


def test_what_never_varies_is_told_by_its_value() -> None:
    same = difference([5.0] * 4, [5.0] * 4, 0.95)
    other = difference([5.0] * 4, [6.0] * 4, 0.95)
    assert same is not None
    assert other is not None
    assert (same.can_be_told, other.can_be_told) == (False, True)
