from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.nvml.limits import CardLimits
from gpuwarden.thermal.thresholds import SHUTDOWN_RESERVE_CELSIUS, thresholds_of

degrees = st.none() | st.floats(45, 130).map(round)


def figures(
    maximum: float | None = None,
    slowdown: float | None = None,
    shutdown: float | None = None,
    memory: float | None = None,
) -> tuple[float, float, float]:
    thresholds = thresholds_of(CardLimits(maximum, slowdown, shutdown, memory))
    return thresholds.alert_celsius, thresholds.critical_celsius, thresholds.safe_celsius


def test_a_card_with_room_has_the_articles_figures() -> None:
    assert figures(87, 89, 95) == (78, 85, 72)  # H200
    assert figures(85, 93, 96) == (78, 85, 72)  # T4
    assert figures(85, 89, 92) == (78, 85, 72)  # A100


def test_a_card_that_tops_out_early_is_watched_early() -> None:
    assert figures(57) == (50, 57, 44)  # MX330


def test_a_card_that_names_nothing_has_the_articles_figures_and_a_note() -> None:
    assert figures() == (78, 85, 72)
    assert any("no temperature limit" in note for note in thresholds_of(CardLimits()).notes)


def test_a_slowdown_alone_stands_in_for_the_maximum() -> None:
    assert figures(slowdown=80) == (69, 76, 63)


def test_critical_keeps_clear_of_the_shutdown() -> None:
    assert figures(maximum=85, shutdown=87) == (75, 82, 69)


def test_the_memory_is_watched_by_its_own_maximum() -> None:
    thresholds = thresholds_of(CardLimits(87, memory_maximum_celsius=95))
    assert (thresholds.memory_alert_celsius, thresholds.memory_critical_celsius) == (88, 95)


def test_a_card_without_a_memory_limit_says_so() -> None:
    thresholds = thresholds_of(CardLimits(87))
    assert thresholds.memory_alert_celsius is None
    assert any("memory" in note for note in thresholds.notes)


@given(degrees, degrees, degrees, degrees)
def test_thresholds_are_in_order_and_below_the_cards_own(
    maximum: float | None, slowdown: float | None, shutdown: float | None, memory: float | None
) -> None:
    thresholds = thresholds_of(CardLimits(maximum, slowdown, shutdown, memory))
    assert thresholds.safe_celsius < thresholds.alert_celsius < thresholds.critical_celsius
    assert thresholds.alert_celsius <= 78
    assert thresholds.critical_celsius <= 85
    if maximum is not None:
        assert thresholds.critical_celsius <= maximum
    if shutdown is not None:
        assert thresholds.critical_celsius <= shutdown - SHUTDOWN_RESERVE_CELSIUS
