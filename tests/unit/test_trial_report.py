# SPDX-License-Identifier: Apache-2.0
"""The page about a real card says what was recorded on it, no more and no less."""

import pytest

from tools.trial_figures import Sample, figures_of, read_samples
from tools.trial_report import DATA, DOCUMENT, DRAWING, drawing, filled


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return read_samples(DATA / "h200_holding.csv")


def test_the_page_follows_from_the_data() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert filled(page) == page, "python -m tools.trial_report writes it"


def test_the_drawing_follows_from_the_data() -> None:
    assert drawing() == DRAWING.read_text(encoding="utf-8"), "python -m tools.trial_report draws it"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks for 'readings'"):
        filled("nothing\n")


def test_the_mean_was_held_and_the_peak_was_not(samples: list[Sample]) -> None:
    figures = figures_of(samples)
    assert figures.full.mean_celsius > figures.alert_celsius + 3
    assert figures.held.highest_mean_celsius <= figures.alert_celsius + 1
    assert figures.held.lowest_mean_celsius >= figures.alert_celsius - 2
    assert figures.held.peak_celsius > figures.alert_celsius + 3
    assert figures.held.peak_watts > 0.9 * figures.full.peak_watts


def test_means_and_peaks_are_those_of_the_last_ten_seconds(samples: list[Sample]) -> None:
    last = [each.die_celsius for each in samples[200:250]]
    assert samples[249].mean_celsius == pytest.approx(sum(last) / 50)
    assert samples[249].peak_celsius == max(last)
    assert samples[0].mean_celsius == samples[0].die_celsius


def test_the_recording_fits_a_page() -> None:
    for file in (DATA / "h200_holding.csv", DRAWING):
        assert file.stat().st_size <= 100_000
