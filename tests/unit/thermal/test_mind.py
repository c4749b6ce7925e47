# SPDX-License-Identifier: Apache-2.0
"""From what is seen and asked for to what is to be done."""

from dataclasses import replace
from typing import Literal

import pytest

from gpuwarden.config.thermal import CardWishes
from gpuwarden.thermal.decision import UNTOUCHED, Authority, Reading, Settings
from gpuwarden.thermal.mind import Mind, Rules
from gpuwarden.thermal.observation import Trouble
from gpuwarden.thermal.thresholds import ThresholdsError
from gpuwarden.thermal.view import View, judged, take
from gpuwarden.values import ThermalState
from tests.unit.thermal.leases import lease
from tests.unit.thermal.readings import AUTHORITY, FRESH, H200, judgement, not_seen, seen, view_of

STEPPED = Rules(CardWishes(policy="stepped"))
AT_ALERT = Settings(power_limit_watts=245.0, sm_clock_mhz=1440, batch_limit=1)
ALERT, CRITICAL, NORMAL = ThermalState.ALERT, ThermalState.CRITICAL, ThermalState.NORMAL


def stepped(rules: Rules = STEPPED, authority: Authority = AUTHORITY) -> Mind:
    """A mind that has learnt its card, with the policy that is easiest to foresee."""
    mind = Mind(rules)
    mind.learn(H200, authority, FRESH)
    return mind


def reading(celsius: float, at: float = 0.0) -> Reading:
    return Reading(at, celsius, 40.0, 300.0)


def wishing(**celsius: float) -> Rules:
    return Rules(CardWishes(policy="stepped", **celsius))  # type: ignore[arg-type]


def test_the_policy_follows_the_thresholds_of_the_card() -> None:
    mind = stepped()
    assert mind.policy_name == "stepped"
    assert mind.decide(reading(77), None).state is NORMAL
    assert mind.decide(reading(78, 1), None).settings == AT_ALERT
    assert mind.decide(reading(85, 2), None).settings.power_limit_watts == 100


def test_the_usual_policy_regulates() -> None:
    mind = Mind(Rules())
    assert mind.policy_name == "regulated"
    assert mind.learn(H200, AUTHORITY, FRESH)
    assert mind.decide(reading(40), None).settings == UNTOUCHED


def test_thresholds_are_new_once() -> None:
    mind = Mind(STEPPED)
    assert mind.learn(H200, AUTHORITY, FRESH)
    assert not mind.learn(H200, AUTHORITY, FRESH)
    assert mind.learn(replace(H200, maximum_operating_celsius=80), AUTHORITY, FRESH)
    assert mind.thresholds is not None
    assert mind.thresholds.alert_celsius == 73


def test_means_that_change_are_taken_up_without_forgetting_the_heat() -> None:
    mind = stepped()
    mind.decide(reading(80), None)
    mind.learn(H200, replace(AUTHORITY, original_watts=300.0), FRESH)
    held = mind.decide(reading(77, 1), None)
    assert (held.state, held.settings.power_limit_watts) == (ALERT, 210)


def test_thresholds_that_do_not_suit_the_card_are_replaced_by_its_own() -> None:
    mind = stepped(wishing(alert_celsius=88.0, critical_celsius=93.0))
    assert "critical_celsius 93 is above 90" in mind.refusal
    assert "shutdown 95 C" in mind.refusal
    assert mind.thresholds is not None
    assert (mind.thresholds.alert_celsius, mind.thresholds.critical_celsius) == (78, 85)


def test_rules_that_do_not_suit_the_card_are_told_before_they_are_followed() -> None:
    mind = stepped()
    with pytest.raises(ThresholdsError, match="alert_celsius 90 is not below"):
        mind.check(wishing(alert_celsius=90.0))
    mind.check(wishing(alert_celsius=70.0))
    assert mind.decide(reading(72), None).state is NORMAL


def test_rules_are_checked_against_a_card_that_was_seen_before_the_last_reload() -> None:
    mind = stepped()
    mind.follow(wishing(alert_celsius=70.0))
    with pytest.raises(ThresholdsError):
        mind.check(wishing(alert_celsius=90.0))


def test_a_card_that_was_never_seen_bears_any_rules_until_it_is() -> None:
    Mind(STEPPED).check(wishing(alert_celsius=90.0))


def test_other_rules_are_followed_from_the_next_look_on() -> None:
    mind = stepped()
    mind.follow(wishing(alert_celsius=60.0))
    assert mind.learn(H200, AUTHORITY, FRESH)
    assert mind.decide(reading(60), None).state is ALERT
    assert mind.refusal == ""


@pytest.mark.parametrize("policy", ["stepped", "regulated"])
def test_a_card_that_a_former_life_has_held_is_not_let_go_at_once(
    policy: Literal["stepped", "regulated"],
) -> None:
    mind = Mind(Rules(CardWishes(policy=policy)))
    mind.learn(H200, AUTHORITY, replace(FRESH, held=True))
    found = mind.decide(reading(76), None)
    assert found.state is not NORMAL
    assert found.settings.power_limit_watts is not None
    assert found.settings.power_limit_watts <= 0.75 * 350


def test_a_reload_that_changes_nothing_keeps_what_was_learnt() -> None:
    mind = stepped()
    mind.decide(reading(80), None)
    mind.follow(replace(STEPPED))
    assert not mind.learn(H200, AUTHORITY, FRESH)
    assert mind.decide(reading(77, 1), None).state is ALERT


def test_an_override_is_weighed_in() -> None:
    assert stepped().decide(reading(40), lease("critical")).state is CRITICAL


def test_the_last_judgement_holds_while_the_silence_is_short() -> None:
    assert stepped().without_reading(view_of(50), 3.9, None) is None


def test_a_blind_card_is_cooled_as_at_alert() -> None:
    mind = stepped()
    mind.decide(reading(50), None)
    found = mind.without_reading(view_of(50), 4.0, None)
    assert found is not None
    assert (found.state, found.settings) == (ThermalState.BLIND, AT_ALERT)
    assert found.reason == "the driver has not answered for 3 s"


def test_a_card_that_was_blind_from_the_start_is_cooled_as_at_alert() -> None:
    mind = Mind(STEPPED)
    view = take(View(0, 0.0, 0), not_seen(Trouble.SENSOR, "no sensor"), 0.1)
    mind.meet(AUTHORITY)
    found = mind.without_reading(view, 0.1, None)
    assert found is not None
    assert (found.reason, found.settings) == ("no sensor", AT_ALERT)


def test_a_blind_card_stays_cool_over_a_reload() -> None:
    mind = stepped()
    mind.follow(wishing(alert_celsius=60.0))
    found = mind.without_reading(view_of(50), 60.0, None)
    assert found is not None
    assert found.settings == AT_ALERT


def test_a_blind_card_under_an_override_is_cooled_by_both() -> None:
    found = stepped().without_reading(view_of(50), 60.0, lease("critical"))
    assert found is not None
    assert found.state is ThermalState.BLIND
    assert found.settings.power_limit_watts == 100


def test_a_lost_card_gets_no_work() -> None:
    view = take(view_of(50), not_seen(Trouble.LOST, "fell off"), 1.2)
    found = stepped().without_reading(view, 1.2, None)
    assert found is not None
    assert (found.state, found.settings.paused) == (ThermalState.LOST, True)


def test_heat_is_what_would_come_back_with_the_original_settings() -> None:
    mind = stepped()
    mind.decide(reading(50), None)
    assert not mind.is_hot(view_of(50))
    assert not mind.is_hot(view_of(72))
    assert mind.is_hot(view_of(73))
    mind.decide(reading(80), None)
    assert mind.is_hot(view_of(60, ALERT))


def test_a_blind_card_counts_as_hot_and_a_lost_one_as_gone() -> None:
    mind = stepped()
    assert mind.is_hot(judged(view_of(50), judgement(ThermalState.BLIND), 2))
    assert not mind.is_hot(judged(view_of(50), judgement(ThermalState.LOST), 2))


def test_an_override_makes_no_card_hot() -> None:
    mind = stepped()
    forced = mind.decide(reading(50), lease("critical"))
    view = judged(take(View(0, 0.0, 0), seen(50), 1.0), forced, 1)
    assert view.state is CRITICAL
    assert not mind.is_hot(view)
