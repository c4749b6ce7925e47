# SPDX-License-Identifier: Apache-2.0
"""No reading breaks a policy: it answers, within the card's range, and goes on."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.plant.cards import H100
from gpuwarden.simulate.rehearsal import authority_over, thresholds_for
from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Policy, Reading, cooler
from gpuwarden.thermal.decision import Settings as Wanted
from gpuwarden.thermal.policy import POLICIES, make_policy
from gpuwarden.values import ThermalState

AUTHORITY, THRESHOLDS = authority_over(H100), thresholds_for(H100)
NO_FIGURES = [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 0.0, -1.0]


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.one_of(st.floats(low, high), st.sampled_from(NO_FIGURES))


def readings() -> st.SearchStrategy[Reading]:
    return st.builds(
        Reading,
        at_seconds=numbers(0, 1e6),
        die_celsius=numbers(-20, 130),
        memory_celsius=st.none() | numbers(-20, 130),
        power_watts=st.none() | numbers(0, 800),
        power_averaged=st.booleans(),
        sm_clock_mhz=st.none() | numbers(0, 3000),
        slowed_by_hardware=st.booleans(),
    )


def authorities() -> st.SearchStrategy[Authority]:
    return st.builds(
        Authority,
        original_watts=st.none() | st.sampled_from([0.0, 50.0, 250.0, 350.0]),
        minimum_watts=st.sampled_from([0.0, 60.0, 200.0, 400.0]),
        rated_watts=st.none() | st.sampled_from([0.0, 350.0]),
        sm_clocks_mhz=st.none() | st.sampled_from([(210, 1755), (1755, 1755)]),
        memory_clock_mhz=st.none() | st.just(1593),
        max_batch=st.sampled_from([1, 2, 4, 7]),
        shutdown_celsius=st.none() | st.just(95.0),
    )


def check_within(judgement: Judgement, authority: Authority) -> None:
    wanted, original = judgement.settings, authority.original_watts
    if wanted.power_limit_watts is not None:
        assert original is not None
        least = min(authority.minimum_watts, original)
        assert least <= wanted.power_limit_watts <= original
    if wanted.sm_clock_mhz is not None:
        assert authority.sm_clocks_mhz is not None
        low, high = authority.sm_clocks_mhz
        assert low <= wanted.sm_clock_mhz <= high
    assert 0 < wanted.dispatch_duty <= 1
    assert wanted.batch_limit is None or 1 <= wanted.batch_limit <= authority.max_batch
    assert wanted.stop_requested <= wanted.paused


Event = Reading | Authority | None


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=100, deadline=None)
@given(
    first=authorities(),
    events=st.lists(st.one_of(readings(), readings(), authorities(), st.none()), max_size=40),
)
def test_whatever_is_read_and_whatever_changes_the_answer_is_one_that_can_be_set(
    name: str, first: Authority, events: list[Event]
) -> None:
    policy, authority = make_policy(name, first, THRESHOLDS), first
    for event in events:
        if isinstance(event, Authority):
            authority = event
            policy.adopt(authority, THRESHOLDS)
        elif isinstance(event, Reading):
            check_within(policy.decide(event), authority)
        else:
            check_within(policy.blind(0.0), authority)


def calm(policy: Policy, start: float, seconds: float) -> Judgement:
    reading = Reading(start, 40.0, 40.0, 60.0, sm_clock_mhz=1755.0)
    judgement = None
    for number in range(int(seconds * 2)):
        judgement = policy.decide(replace(reading, at_seconds=start + number / 2))
    assert judgement is not None
    return judgement


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=25, deadline=None)
@given(events=st.lists(readings(), max_size=30))
def test_after_any_nonsense_a_cool_card_gets_everything_back(
    name: str, events: list[Reading]
) -> None:
    policy = make_policy(name, AUTHORITY, THRESHOLDS)
    for event in events:
        policy.decide(event)
    assert calm(policy, 2e6, 400).settings == UNTOUCHED


@pytest.mark.parametrize("name", POLICIES)
def test_a_reading_that_is_no_number_counts_as_none(name: str) -> None:
    policy = make_policy(name, AUTHORITY, THRESHOLDS)
    calm(policy, 0, 10)
    judgement = policy.decide(Reading(10.0, math.nan, power_watts=60.0))
    assert judgement.state is ThermalState.BLIND
    assert judgement.settings.power_limit_watts == pytest.approx(0.7 * 350)
    assert calm(policy, 11, 200).settings == UNTOUCHED


@pytest.mark.parametrize("name", POLICIES)
def test_a_clock_that_was_set_back_delays_nothing(name: str) -> None:
    policy = make_policy(name, AUTHORITY, THRESHOLDS)
    calm(policy, 1e6, 10)
    policy.decide(Reading(1e6 + 10, 86.0, power_watts=350.0))
    assert calm(policy, 5.0, 300).settings == UNTOUCHED


@pytest.mark.parametrize("name", POLICIES)
def test_a_gap_of_hours_is_no_reason_to_do_anything(name: str) -> None:
    policy = make_policy(name, AUTHORITY, THRESHOLDS)
    calm(policy, 0, 10)
    assert calm(policy, 36_000, 1).settings == UNTOUCHED


@pytest.mark.parametrize("name", POLICIES)
def test_at_a_clock_that_stands_still_a_critical_card_is_still_cut_down(name: str) -> None:
    policy = make_policy(name, AUTHORITY, THRESHOLDS)
    for _ in range(1000):
        judgement = policy.decide(Reading(7.0, 90.0, power_watts=350.0))
    assert judgement.settings.power_limit_watts == 200
    assert judgement.settings.paused


wanted = st.builds(
    Wanted,
    power_limit_watts=st.none() | st.floats(60, 350),
    sm_clock_mhz=st.none() | st.integers(210, 1755),
    memory_clock_mhz=st.none() | st.integers(405, 1593),
    batch_limit=st.none() | st.integers(1, 8),
    dispatch_duty=st.floats(0.05, 1.0),
    paused=st.booleans(),
    stop_requested=st.booleans(),
)


@given(one=wanted, other=wanted)
def test_the_cooler_of_two_settings_is_one_way_round_as_the_other(
    one: Wanted, other: Wanted
) -> None:
    both = cooler(one, other)
    assert both == cooler(other, one)
    assert cooler(both, one) == both
    assert cooler(one, UNTOUCHED) == one
    assert both.paused is (one.paused or other.paused)
    if one.power_limit_watts is not None:
        assert both.power_limit_watts is not None
        assert both.power_limit_watts <= one.power_limit_watts
