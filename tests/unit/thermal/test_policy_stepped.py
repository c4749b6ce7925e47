# SPDX-License-Identifier: Apache-2.0
"""The articles' policy: three fixed steps, and half a minute of safe."""

from gpuwarden.plant.cards import H100
from gpuwarden.simulate.rehearsal import authority_over, thresholds_for
from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Policy, Reading
from gpuwarden.thermal.policy import make_policy
from gpuwarden.values import ThermalState


def stepped(authority: Authority | None = None) -> Policy:
    return make_policy("stepped", authority or authority_over(H100), thresholds_for(H100))


def shown(policy: Policy, start: float, seconds: float, celsius: float) -> Judgement:
    judgement = None
    for number in range(max(1, round(seconds * 5))):
        judgement = policy.decide(Reading(start + number / 5, celsius))
    assert judgement is not None
    return judgement


def test_below_alert_nothing_is_set() -> None:
    judgement = shown(stepped(), 0, 60, 77)
    assert judgement == Judgement(ThermalState.NORMAL, "", UNTOUCHED)


def test_at_alert_a_fixed_cap_lowered_clocks_and_single_requests() -> None:
    judgement = shown(stepped(), 0, 0.2, 78)
    assert judgement.state is ThermalState.ALERT
    assert judgement.settings.power_limit_watts == 245.0
    assert judgement.settings.sm_clock_mhz == 1404
    assert judgement.settings.batch_limit == 1
    assert judgement.settings.dispatch_duty == 1.0


def test_warmer_means_no_other_step() -> None:
    policy = stepped()
    at_alert = shown(policy, 0, 10, 78).settings
    assert shown(policy, 10, 10, 84).settings == at_alert


def test_half_a_minute_at_safe_gives_everything_back() -> None:
    policy = stepped()
    shown(policy, 0, 10, 78)
    recovering = shown(policy, 10, 29.8, 72)
    assert recovering.state is ThermalState.RECOVERING
    assert recovering.settings != UNTOUCHED
    assert shown(policy, 40, 0.4, 72) == Judgement(ThermalState.NORMAL, "", UNTOUCHED)


def test_one_degree_above_safe_starts_the_wait_again() -> None:
    policy = stepped()
    shown(policy, 0, 1, 78)
    shown(policy, 1, 25, 72)
    shown(policy, 26, 0.2, 73)
    assert shown(policy, 26.2, 29, 72).settings != UNTOUCHED
    assert shown(policy, 55.4, 2, 72).settings == UNTOUCHED


def test_between_safe_and_alert_it_stays_as_it_was() -> None:
    """The weakness of fixed steps: a cap that settles there is never lifted."""
    policy = stepped()
    shown(policy, 0, 1, 78)
    assert shown(policy, 1, 600, 75).settings != UNTOUCHED


def test_a_card_that_takes_neither_limit_nor_clock_works_half_the_time() -> None:
    settings = shown(stepped(Authority(max_batch=4)), 0, 1, 79).settings
    assert settings.batch_limit == 1
    assert settings.dispatch_duty == 0.5
    assert settings.power_limit_watts is None
    assert settings.sm_clock_mhz is None
