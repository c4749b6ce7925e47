# SPDX-License-Identifier: Apache-2.0
"""From the front door's metrics at both ends of a window to the window."""

import pytest

from gpuwarden.baseline.figures import quantile
from gpuwarden.baseline.windows import Page, UnreadablePageError, Watched, window
from gpuwarden.values import ThermalState
from tests.unit.baseline.recordings import times
from tests.unit.cli.samples import gpu

HISTOGRAMS = ("total_seconds", "queue_wait_seconds", "execution_seconds")


def page(quick: int, slow: int, seconds: float, **outcomes: int) -> Page:
    """So many requests answered within 1 s and so many later, since the start."""
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for name in HISTOGRAMS:
        full = f"gpuwarden_gateway_{name}"
        for bound, count in (("1.0", quick), ("5.0", quick + slow), ("+Inf", quick + slow)):
            values[f"{full}_bucket", (("le", bound),)] = count
        values[f"{full}_count", ()] = quick + slow
        values[f"{full}_sum", ()] = seconds
    for outcome, count in {"completed": quick + slow, **outcomes}.items():
        values["gpuwarden_gateway_requests_total", (("outcome", outcome),)] = count
    return Page(values)


def test_a_window_has_what_happened_in_it_alone() -> None:
    found = window(25.0, 25.0, page(10, 5, 30.0, failed=1), page(18, 6, 42.0, failed=3), Watched())
    assert found.requests is not None
    assert (found.requests.completed, found.requests.failed) == (9, 2)
    assert found.requests.total.counts == [8, 1, 0]
    assert found.requests.total.bounds == [1.0, 5.0]
    assert found.requests.total.sum_seconds == 12.0


def test_a_front_door_that_began_anew_makes_no_window() -> None:
    found = window(0.0, 25.0, page(10, 5, 30.0), page(1, 0, 0.5), Watched())
    assert (found.requests, found.problem) == (None, "the front door was restarted")


def test_a_front_door_of_another_version_makes_no_window() -> None:
    other = Page(
        {
            (n, tuple((k, v.replace("5.0", "6.0")) for k, v in labels)): value
            for (n, labels), value in page(9, 9, 40.0).values.items()
        }
    )
    assert window(0.0, 25.0, page(1, 0, 0.5), other, Watched()).requests is None


def test_a_silent_front_door_makes_no_window_but_the_cards_do() -> None:
    watched = Watched([{0: gpu(0)}, {0: gpu(0, temperature_celsius=45.0, power_watts=None)}, {}])
    found = window(0.0, 25.0, page(1, 0, 1.0), None, watched)
    assert (found.requests, found.problem) == (None, "the front door was silent")
    card = found.cards[0]
    assert (card.celsius_highest, card.watts_mean, card.throttled_share) == (45.0, 122.4, 0.0)


def test_of_a_blind_card_nothing_is_invented() -> None:
    blind = gpu(0, state=ThermalState.BLIND, temperature_celsius=None, power_watts=None)
    card = window(0.0, 1.0, None, None, Watched([{0: blind}])).cards[0]
    assert (card.celsius_highest, card.watts_mean, card.throttled_share) == (None, None, None)


def test_another_versions_metrics_are_not_guessed_at() -> None:
    with pytest.raises(UnreadablePageError, match="have no gpuwarden_gateway_total_seconds"):
        Page({}).buckets("total_seconds")


def test_a_percentile_of_too_few_is_none() -> None:
    assert quantile(times(0.8, 19), 0.95) is None
    assert quantile(times(0.8, 20), 0.95) == pytest.approx(0.975)
    assert quantile(times(99.0, 20), 0.95) == 5.0
