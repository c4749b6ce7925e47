# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.config.thermal import CardWishes
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.thermal.thresholds import (
    SHUTDOWN_RESERVE_CELSIUS,
    Thresholds,
    ThresholdsError,
    thresholds_of,
)

degrees = st.none() | st.floats(45, 130).map(round)
wished = st.just(0.0) | st.floats(30, 120).map(round)
H200 = CardLimits(87, 89, 95, 95)


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


def with_wishes(
    limits: CardLimits = H200, *, alert: float = 0, critical: float = 0, safe: float = 0
) -> Thresholds:
    return thresholds_of(limits, CardWishes(alert, critical, safe))


def test_what_is_wished_for_holds_and_the_rest_is_the_cards_own() -> None:
    everything = with_wishes(alert=70, critical=80, safe=60)
    assert (everything.alert_celsius, everything.critical_celsius) == (70, 80)
    assert everything.safe_celsius == 60
    alert_alone = with_wishes(alert=84)
    assert (alert_alone.alert_celsius, alert_alone.critical_celsius) == (84, 85)
    assert alert_alone.safe_celsius == 78
    assert with_wishes(critical=90).alert_celsius == 78
    assert with_wishes(safe=75).safe_celsius == 75
    assert with_wishes() == thresholds_of(H200)


def test_the_memorys_thresholds_are_always_the_cards_own() -> None:
    wished_for = with_wishes(alert=60, critical=70)
    assert (wished_for.memory_alert_celsius, wished_for.memory_critical_celsius) == (88, 95)


MX330 = CardLimits(57, 62, 67)
T4 = CardLimits(85, 93, 96)


@pytest.mark.parametrize(
    ("limits", "wishes", "words"),
    [
        (
            CardLimits(82, 85, 90),
            CardWishes(alert_celsius=84),
            "alert_celsius 84 is not below critical_celsius 82 (from the card); "
            "the card says: maximum operating 82 C, slowdown 85 C, shutdown 90 C",
        ),
        (H200, CardWishes(critical_celsius=75), "alert_celsius 78 (from the card) is not below"),
        (MX330, CardWishes(safe_celsius=72), "safe_celsius 72 is not below alert_celsius 50 (from"),
        (MX330, CardWishes(78, 85, 72), "critical_celsius 85 is above 62, 5 C below the card's sh"),
        (T4, CardWishes(critical_celsius=92), "critical_celsius 92 is above 91, 5 C below"),
        (CardLimits(85, 93), CardWishes(critical_celsius=94), "is above 93, the card's slowdown"),
        (CardLimits(85), CardWishes(critical_celsius=86), "is above 85, the card's maximum oper"),
        (CardLimits(), CardWishes(critical_celsius=86), "the most for a card that names no limit"),
        (CardLimits(), CardWishes(alert_celsius=90), "the card says: no temperature limit"),
        (T4, CardWishes(90, 80, 95), "is not below critical_celsius 80; safe_celsius 95 is not"),
    ],
)
def test_wishes_that_do_not_suit_the_card_are_refused_with_its_own_figures(
    limits: CardLimits, wishes: CardWishes, words: str
) -> None:
    with pytest.raises(ThresholdsError) as caught:
        thresholds_of(limits, wishes)
    assert words in str(caught.value)


def test_critical_may_lie_just_5_c_below_the_shutdown() -> None:
    assert with_wishes(T4, critical=91).critical_celsius == 91
    assert with_wishes(CardLimits(slowdown_celsius=90), critical=90).critical_celsius == 90


@given(degrees, degrees, degrees, wished, wished, wished)
def test_wishes_are_taken_as_they_are_or_refused(
    maximum: float | None,
    slowdown: float | None,
    shutdown: float | None,
    alert: float,
    critical: float,
    safe: float,
) -> None:
    limits = CardLimits(maximum, slowdown, shutdown)
    own = thresholds_of(limits)
    try:
        taken = thresholds_of(limits, CardWishes(alert, critical, safe))
    except ThresholdsError as error:
        assert alert or critical or safe
        assert "the card says: " in str(error)
        return
    assert taken.safe_celsius < taken.alert_celsius < taken.critical_celsius
    if shutdown is not None:
        assert taken.critical_celsius <= shutdown - SHUTDOWN_RESERVE_CELSIUS
    assert taken.alert_celsius == (alert or own.alert_celsius)
    assert taken.critical_celsius == (critical or own.critical_celsius)
    assert taken.safe_celsius == (safe or taken.alert_celsius - 6)


@given(
    degrees,
    degrees,
    st.lists(st.floats(30, 120), min_size=3, max_size=3, unique=True).map(sorted),
    st.floats(SHUTDOWN_RESERVE_CELSIUS + 0.01, 50),
)
def test_thresholds_in_order_and_clear_of_the_shutdown_are_never_refused(
    maximum: float | None, slowdown: float | None, wishes: list[float], reserve: float
) -> None:
    safe, alert, critical = wishes
    taken = with_wishes(
        CardLimits(maximum, slowdown, critical + reserve), alert=alert, critical=critical, safe=safe
    )
    assert (taken.safe_celsius, taken.alert_celsius, taken.critical_celsius) == tuple(wishes)
