# SPDX-License-Identifier: Apache-2.0
"""Critical: least power, no new work, and in the end no workers."""

from dataclasses import replace

import pytest

from gpuwarden.plant.cards import H100, T4
from gpuwarden.simulate.rehearsal import authority_over, thresholds_for
from gpuwarden.thermal.decision import Judgement, Policy, Reading
from gpuwarden.thermal.policy import POLICIES, make_policy
from gpuwarden.values import ThermalState
from tests.unit.thermal.worlds import run, scenario, step

HOT, CRITICAL, SHUTDOWN = 80.0, 85.0, 95.0


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return make_policy(request.param, authority_over(H100), thresholds_for(H100))


class Told:
    """A policy and its clock."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0

    def sees(self, celsius: float, seconds: float = 0.2, memory: float = 60.0) -> Judgement:
        judgement = None
        for _ in range(max(1, round(seconds * 5))):
            judgement = self.policy.decide(Reading(self.now, celsius, memory, 300.0))
            self.now += 0.2
        assert judgement is not None
        return judgement


def test_critical_is_answered_at_once_with_the_least(policy: Policy) -> None:
    told = Told(policy)
    told.sees(60, 10)
    judgement = told.sees(CRITICAL)
    assert judgement.state is ThermalState.CRITICAL
    settings = judgement.settings
    assert settings.power_limit_watts == H100.limit_minimum_watts
    assert settings.sm_clock_mhz == H100.clocks.sm_minimum
    assert settings.paused
    assert not settings.stop_requested


def test_the_memory_can_be_critical_too(policy: Policy) -> None:
    judgement = Told(policy).sees(60, memory=95)
    assert judgement.state is ThermalState.CRITICAL
    assert judgement.reason == "memory 95 C, critical is 95 C"


def test_a_card_that_slows_itself_is_critical_whatever_its_sensor_reads(policy: Policy) -> None:
    judgement = policy.decide(Reading(0.0, 70.0, 60.0, 300.0, slowed_by_hardware=True))
    assert judgement.state is ThermalState.CRITICAL


def test_three_degrees_below_shutdown_the_workers_must_go_at_once(policy: Policy) -> None:
    told = Told(policy)
    assert not told.sees(SHUTDOWN - 4).settings.stop_requested
    assert told.sees(SHUTDOWN - 3).settings.stop_requested


@pytest.mark.parametrize("memory", [False, True])
def test_a_card_that_still_warms_with_the_least_power_loses_its_workers(
    policy: Policy, memory: bool
) -> None:
    told = Told(policy)

    def sees(excess: float, seconds: float) -> Judgement:
        if memory:
            return told.sees(60, seconds, memory=95 + excess)
        return told.sees(CRITICAL + excess, seconds)

    assert not sees(1, 1).settings.stop_requested
    assert not sees(0, 4).settings.stop_requested
    assert sees(1, 1).settings.stop_requested


def test_a_card_that_cools_keeps_them(policy: Policy) -> None:
    told = Told(policy)
    for celsius in (90, 89, 88, 87, 86, 85):
        assert not told.sees(celsius, 3).settings.stop_requested


def test_half_a_minute_without_effect_is_enough(policy: Policy) -> None:
    told = Told(policy)
    assert not told.sees(CRITICAL, 29).settings.stop_requested
    assert told.sees(CRITICAL, 2).settings.stop_requested


def test_workers_come_back_when_the_card_is_safe_and_not_before(policy: Policy) -> None:
    told = Told(policy)
    assert told.sees(SHUTDOWN - 2).settings.stop_requested
    assert told.sees(73, 60).settings.stop_requested
    assert not told.sees(72, 1).settings.stop_requested
    assert not told.sees(72, 1).settings.paused


def test_admission_reopens_three_degrees_below_critical(policy: Policy) -> None:
    told = Told(policy)
    told.sees(CRITICAL)
    assert told.sees(83, 5).settings.paused
    assert not told.sees(82).settings.paused


def test_an_emergency_lasts_two_seconds_at_least(policy: Policy) -> None:
    told = Told(policy)
    told.sees(CRITICAL)
    assert told.sees(70, 1.6).state is ThermalState.CRITICAL
    assert told.sees(70, 0.6).state is not ThermalState.CRITICAL


def test_what_was_cut_stays_cut_until_the_card_is_below_alert(policy: Policy) -> None:
    told = Told(policy)
    told.sees(CRITICAL, 1)
    settings = told.sees(HOT, 20).settings
    assert settings.power_limit_watts == H100.limit_minimum_watts
    assert settings.sm_clock_mhz == H100.clocks.sm_minimum
    warm = told.sees(76, 120).settings
    assert warm.power_limit_watts is None or warm.power_limit_watts > H100.limit_minimum_watts


def test_blind_in_an_emergency_stays_at_the_least(policy: Policy) -> None:
    told = Told(policy)
    told.sees(SHUTDOWN - 2)
    settings = policy.blind(told.now).settings
    assert settings.power_limit_watts == H100.limit_minimum_watts
    assert settings.paused
    assert settings.stop_requested


@pytest.mark.parametrize("name", POLICIES)
def test_after_a_failed_fan_and_an_emergency_the_card_works_again(name: str) -> None:
    """Five times the resistance for a while: nothing holds a T4 then."""
    world = scenario(2400, step(0, 35, 1.0), step(60, 35, 1.0, 5.0), step(400, 20, 1.0, 0.6))
    finished = run(T4, world, name, authority=replace(authority_over(T4), minimum_watts=69.0))
    last = finished.moments[-1].judgement
    assert last.state is ThermalState.NORMAL
    assert last.settings.power_limit_watts is None
    assert last.settings.sm_clock_mhz is None
    assert not last.settings.paused
