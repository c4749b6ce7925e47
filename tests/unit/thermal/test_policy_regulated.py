# SPDX-License-Identifier: Apache-2.0
"""The regulated policy on single cards: what it holds, gives back, and goes on from."""

from dataclasses import replace

import pytest

from gpuwarden.plant.cards import A4000, H200, PRESETS, RTX_3090, T4, CardModel
from gpuwarden.simulate.rehearsal import authority_over, thresholds_for
from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Reading
from gpuwarden.thermal.policy import make_policy
from gpuwarden.thermal.policy.loop import PROBE_SHARE, RISE_SHARE, WAITING_SHARE
from gpuwarden.thermal.policy.pen import COARSE_SHARE, FINE_SHARE, PATIENCE_WRITES, Pen
from gpuwarden.thermal.policy.regulated import SINK_HOT, Regulated
from gpuwarden.thermal.policy.sink import RESISTANCE_BOUNDS, SinkEstimate
from gpuwarden.values import ThermalState
from tests.unit.thermal.worlds import bursts, run, scenario, step

NOTHING_BUT_WORK = Authority(max_batch=4, rated_watts=350.0)


def regulated(card: CardModel, authority: Authority | None = None) -> Regulated:
    policy = make_policy("regulated", authority or authority_over(card), thresholds_for(card))
    assert isinstance(policy, Regulated)
    return policy


def shown(
    policy: Regulated, start: float, seconds: float, celsius: float, watts: float | None
) -> Judgement:
    """The last answer to a card that reads the same for so long."""
    judgement = None
    for number in range(max(1, round(seconds * 5))):
        judgement = policy.decide(Reading(start + number / 5, celsius, power_watts=watts))
    assert judgement is not None
    return judgement


def test_a_card_that_stays_cool_is_never_touched() -> None:
    finished = run(H200, scenario(600, step(0, 20, 1.0)))
    assert finished.writes == 0
    assert all(each.judgement.settings == UNTOUCHED for each in finished.moments)
    assert {each.judgement.state for each in finished.moments} == {ThermalState.NORMAL}


def test_the_states_of_a_hot_spell_in_order() -> None:
    world = scenario(1800, step(0, 24, 1.0), step(300, 45, 1.0), step(900, 24, 1.0))
    states = [each.judgement.state for each in run(H200, world).moments]
    seen = [states[0]]
    for state in states:
        if state is not seen[-1]:
            seen.append(state)
    normal, alert = ThermalState.NORMAL, ThermalState.ALERT
    assert seen == [normal, alert, ThermalState.RECOVERING, normal]


def test_an_idle_card_on_a_hot_sink_is_limited_before_the_load_comes() -> None:
    world = scenario(120, step(0, 24, 0.0), step(20, 24, 1.0), sink=71.0)
    finished = run(H200, world)
    assert finished.first.state is ThermalState.NORMAL
    assert finished.first.reason == SINK_HOT
    assert finished.first.settings.power_limit_watts is not None
    critical = finished.thresholds.critical_celsius
    assert max(each.die_celsius for each in finished.moments) < critical


def test_where_the_limit_has_no_authority_the_clock_goes_on() -> None:
    """A T4's limit goes from 70 to 60 W and no lower: by it alone the card ends at 88 C."""
    finished = run(T4, scenario(1800, step(0, 45, 1.0)))
    last = finished.moments[-1]
    assert last.judgement.settings.power_limit_watts == 60
    assert last.judgement.settings.sm_clock_mhz is not None
    assert last.die_celsius < finished.thresholds.alert_celsius + 1


# Two designs that failed in trial.


def test_no_sequence_of_steps_takes_the_learned_resistance_out_of_its_bounds() -> None:
    """Unbounded, it grew with every step that met a warming sink, and took the cap with it."""
    sink = SinkEstimate(350.0)
    low, high = RESISTANCE_BOUNDS
    for number in range(4000):
        hot = number // 20 % 2
        # Half the steps show ten times what any die does, half show it the wrong way round.
        sign = 1 if number < 2000 else -1
        sink.see(number / 5, 60.0 + sign * 100.0 * hot, 50.0 + 300.0 * hot, averaged=False)
        assert low <= sink.resistance <= high


@pytest.mark.parametrize("averaged", [False, True])
def test_bursts_do_not_wear_the_cap_down(averaged: bool) -> None:
    finished = run(RTX_3090, bursts(1800, 32), averaged_power=averaged)
    halves = finished.moments[: len(finished.moments) // 2], finished.moments[-4500:]
    limits = [
        [each.judgement.settings.power_limit_watts or 350.0 for each in half if each.load > 0]
        for half in halves
    ]
    first, second = (sum(half) / len(half) for half in limits)
    assert second > 0.93 * first
    assert finished.throughput_ratio is not None
    assert finished.throughput_ratio > 0.93


def test_what_is_worth_a_write_is_always_within_reach_of_a_step() -> None:
    """A step that ends below what is written at once, and below what is ever written, froze it."""
    assert FINE_SHARE < WAITING_SHARE
    assert min(WAITING_SHARE, RISE_SHARE, PROBE_SHARE) > COARSE_SHARE
    pen = Pen()
    for number in range(round(3 * PATIENCE_WRITES)):
        pen.note(number * 6.0, lowered=number % 2 == 0)
    later = 3 * PATIENCE_WRITES * 6.0 + 30.0
    assert pen.coarse_share(later, hot=False) > 2 * WAITING_SHARE  # it is at its coarsest
    step_watts = WAITING_SHARE * 350.0
    assert pen.writes(later, 200.0, 200.0 + step_watts, 350.0, edge=False, hot=False)


def test_a_limit_that_was_pushed_low_comes_up_again_by_small_steps() -> None:
    """Half a degree below the set point asks for a fifth of a percent a second."""
    policy = regulated(RTX_3090)
    low = shown(policy, 0, 60, 79, 340).settings.power_limit_watts
    assert low is not None
    limit, now = low, 60.0
    for _ in range(300):
        judgement = shown(policy, now, 1, 76, limit)
        limit, now = judgement.settings.power_limit_watts or 350.0, now + 1
    assert limit > low + 20


# Software alone.


@pytest.mark.parametrize("card", list(PRESETS.values()), ids=lambda card: str(card.preset))
def test_with_rests_alone_the_mean_of_ten_seconds_is_held(card: CardModel) -> None:
    """Its peak isn't: the die follows each burst of work within a second."""
    own = thresholds_for(card)
    alert = min(own.alert_celsius, 68.0 if own.memory_alert_celsius else 78.0)
    thresholds = replace(own, alert_celsius=alert, safe_celsius=alert - 6)
    authority = replace(NOTHING_BUT_WORK, rated_watts=card.limit_default_watts)
    world = scenario(1500, step(0, 42, 1.0))
    finished = run(card, world, authority=authority, thresholds=thresholds)
    settings = [each.judgement.settings for each in finished.moments]
    assert all(each.power_limit_watts is None for each in settings)
    assert all(each.sm_clock_mhz is None for each in settings)
    assert any(each.dispatch_duty < 1 for each in settings), "rests hold the mean"
    die = [each.die_celsius for each in finished.moments]
    means = [sum(die[n - 50 : n]) / 50 for n in range(len(die) // 2, len(die))]
    # A batch lasts a second here, and an H200's die moves 20 C with each: so few make a mean swing.
    assert max(means) < alert + (2.0 if card.preset == "H200" else 0.5)
    assert min(means) > alert - 3, "no cooler than needed"


def test_what_software_took_comes_back_when_it_is_cool() -> None:
    world = scenario(2400, step(0, 45, 1.0), step(900, 10, 1.0))
    finished = run(RTX_3090, world, authority=NOTHING_BUT_WORK)
    assert finished.moments[-1].judgement.settings == UNTOUCHED
    assert finished.moments[-1].judgement.state is ThermalState.NORMAL


# What the world around it changes.


def hot_policy() -> tuple[Regulated, float]:
    """One that holds a 3090 back, and its limit."""
    policy = regulated(RTX_3090)
    limit = shown(policy, 0, 30, 79, 300).settings.power_limit_watts
    assert limit is not None
    return policy, limit


def test_a_lower_original_is_obeyed_at_once() -> None:
    policy, limit = hot_policy()
    lower = replace(authority_over(RTX_3090), original_watts=limit - 50)
    policy.adopt(lower, thresholds_for(RTX_3090))
    settings = policy.decide(Reading(30.0, 79.0, power_watts=limit)).settings
    assert settings.power_limit_watts is None or settings.power_limit_watts <= limit - 50


def test_a_higher_original_leaves_a_hot_card_where_it_is() -> None:
    policy = regulated(RTX_3090, replace(authority_over(RTX_3090), original_watts=250.0))
    limit = shown(policy, 0, 30, 79, 240).settings.power_limit_watts
    assert limit is not None
    policy.adopt(authority_over(RTX_3090), thresholds_for(RTX_3090))
    settings = shown(policy, 30, 5, 79, limit).settings
    assert settings.power_limit_watts is not None
    assert settings.power_limit_watts <= limit


def test_a_higher_original_is_what_comes_back() -> None:
    policy, _ = hot_policy()
    policy.adopt(authority_over(RTX_3090), thresholds_for(RTX_3090))
    assert shown(policy, 30, 200, 40, 60).settings == UNTOUCHED


def test_when_the_limit_is_lost_the_clock_takes_over() -> None:
    policy, _ = hot_policy()
    policy.adopt(
        replace(authority_over(RTX_3090), original_watts=None, rated_watts=350.0),
        thresholds_for(RTX_3090),
    )
    settings = shown(policy, 30, 60, 81, 340).settings
    assert settings.power_limit_watts is None
    assert settings.sm_clock_mhz is not None


def test_when_everything_on_the_card_is_lost_its_work_is_cut() -> None:
    policy, _ = hot_policy()
    policy.adopt(NOTHING_BUT_WORK, thresholds_for(RTX_3090))
    settings = shown(policy, 30, 120, 82, 340).settings
    assert settings.power_limit_watts is None
    assert settings.sm_clock_mhz is None
    assert settings.batch_limit == 1
    assert settings.dispatch_duty < 1


def test_lower_thresholds_cool_a_card_that_was_well() -> None:
    policy = regulated(RTX_3090)
    assert shown(policy, 0, 30, 70, 300).settings == UNTOUCHED
    lower = replace(thresholds_for(RTX_3090), alert_celsius=65.0, safe_celsius=59.0)
    policy.adopt(authority_over(RTX_3090), lower)
    judgement = shown(policy, 30, 10, 70, 300)
    assert judgement.state is ThermalState.ALERT
    assert judgement.settings.power_limit_watts is not None


# Blind.


def test_a_blind_card_is_cooled_as_at_alert() -> None:
    policy = regulated(RTX_3090)
    shown(policy, 0, 10, 60, 300)
    judgement = policy.blind(13.0)
    assert judgement.state is ThermalState.BLIND
    assert judgement.settings.power_limit_watts == pytest.approx(0.7 * 350)
    assert judgement.settings.batch_limit == 1


def test_a_blind_card_that_was_held_lower_stays_there() -> None:
    policy = regulated(A4000)
    low = shown(policy, 0, 120, 82, 130).settings.power_limit_watts
    assert low == 100  # its least; 70 % of its limit is 98 W
    assert policy.blind(123.0).settings.power_limit_watts == low


def test_a_card_seen_again_is_given_back_what_blindness_took() -> None:
    policy = regulated(RTX_3090)
    shown(policy, 0, 10, 60, 100)
    policy.blind(13.0)
    assert shown(policy, 14, 120, 60, 100).settings == UNTOUCHED
