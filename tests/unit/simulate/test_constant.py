# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from gpuwarden.plant.cards import A4000, H200, RTX_3090, T4, CardModel
from gpuwarden.plant.scenario import Scenario
from gpuwarden.simulate.constant import best_constant, holds, is_holdable, throughput
from gpuwarden.simulate.rehearsal import thresholds_for
from gpuwarden.thermal.decision import Settings
from tests.unit.thermal.worlds import bursts, scenario, step

HOT = scenario(900, step(0, 32, 1.0))


def held(card: CardModel, world: Scenario, watts: float, clock: int | None = None) -> bool:
    settings = Settings(power_limit_watts=watts, sm_clock_mhz=clock)
    return holds(card, world, thresholds_for(card), settings)


@pytest.mark.parametrize("world", [HOT, bursts(720, 36)])
def test_one_watt_more_is_too_much(world: Scenario) -> None:
    best = best_constant(RTX_3090, world, thresholds_for(RTX_3090))
    assert best is not None
    assert best.sm_clock_mhz is None
    assert held(RTX_3090, world, best.limit_watts)
    assert not held(RTX_3090, world, best.limit_watts + 1)


def test_one_step_of_the_clock_more_is_too_much() -> None:
    world = scenario(900, step(0, 45, 1.0))
    best = best_constant(T4, world, thresholds_for(T4))
    assert best is not None
    clock = best.sm_clock_mhz
    assert clock is not None
    assert not held(T4, world, T4.limit_minimum_watts)
    assert held(T4, world, best.limit_watts, clock)
    assert not held(T4, world, T4.limit_minimum_watts, clock + T4.clocks.sm_step)


def test_a_cool_card_needs_no_limit() -> None:
    best = best_constant(H200, scenario(300, step(0, 20, 1.0)), thresholds_for(H200))
    assert best is not None
    assert best.limit_watts == H200.limit_default_watts
    assert best.throughput_ratio == pytest.approx(1.0, abs=0.001)


def test_the_memory_counts_as_the_die_does() -> None:
    world = scenario(600, step(0, 30, 1.0))
    own = thresholds_for(H200)
    free = best_constant(H200, world, replace(own, memory_alert_celsius=None))
    tight = best_constant(H200, world, replace(own, memory_alert_celsius=62.0))
    assert free is not None
    assert tight is not None
    assert tight.limit_watts < free.limit_watts


def test_where_not_even_the_least_holds_there_is_none() -> None:
    world = scenario(600, step(0, 77, 0.5))
    assert best_constant(A4000, world, thresholds_for(A4000)) is None
    assert not is_holdable(A4000, world, thresholds_for(A4000))


def test_a_card_that_is_too_hot_at_the_start_cannot_be_held() -> None:
    world = scenario(60, step(0, 20, 0.0), sink=79.0)
    assert not is_holdable(T4, world, thresholds_for(T4))


def test_without_work_there_is_no_throughput() -> None:
    assert throughput(T4, scenario(60, step(0, 20, 0.0)), Settings()) is None
