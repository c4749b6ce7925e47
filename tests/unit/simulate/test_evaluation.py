# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from gpuwarden.plant.cards import H100, H200, T4, CardModel
from gpuwarden.plant.scenario import Scenario
from gpuwarden.simulate.constant import BestConstant
from gpuwarden.simulate.evaluation import as_json, evaluate
from gpuwarden.simulate.recovery import recovery_seconds
from gpuwarden.simulate.rehearsal import Moment, Run, rehearse, thresholds_for
from gpuwarden.simulate.world import World
from gpuwarden.thermal.decision import UNTOUCHED, Judgement, Reading, Settings
from gpuwarden.values import ThermalState
from tests.unit.thermal.worlds import bursts, run, scenario, step

CONTRACT_KEYS = """
schema card scenario policy duration_seconds alert_celsius critical_celsius
seconds_above_alert seconds_above_alert_plus_1 seconds_at_or_above_critical
longest_critical_seconds peak_celsius peak_memory_celsius throughput_ratio writes
writes_per_hour steady_peak_to_peak_celsius recovery_seconds final_state final_limit_watts
original_limit_watts final_sm_clock_mhz final_batch_limit final_dispatch_duty holdable
"""
CONTRACT = CONTRACT_KEYS.split()
COOL = scenario(600, step(0, 20, 1.0))


def made_run(readings: list[tuple[int, int]], card: CardModel = H100) -> Run:
    """A run that read these degrees of die and memory."""
    world = World(card, COOL)
    judgement = Judgement(ThermalState.NORMAL, "", UNTOUCHED)
    moments = [
        Moment(number / 5, die + 0.9, memory + 0.9, die, memory, 300.0, 1.0, judgement)
        for number, (die, memory) in enumerate(readings, 1)
    ]
    return Run(card, COOL, thresholds_for(card), judgement, moments, worlds=[world, world])


def test_the_keys_are_the_contracts_in_its_order() -> None:
    evaluation = evaluate(run(T4, COOL), "cool", "regulated")
    assert list(as_json(evaluation)) == CONTRACT
    best = BestConstant(70, None, 1.0)
    assert list(as_json(evaluation, best, with_best=True)) == [*CONTRACT, "best_constant"]
    assert as_json(evaluation, with_best=True)["best_constant"] is None


def test_seconds_count_whole_degrees_of_each_sensor_against_its_own_thresholds() -> None:
    """An H100's die alerts at 78 C and is critical at 85 C, its memory at 88 and 95 C."""
    seen = evaluate(
        made_run([(78, 60), (79, 60), (80, 60), (60, 89), (60, 90), (85, 60), (60, 95), (84, 94)]),
        "made",
        "regulated",
    )
    assert seen.seconds_above_alert == pytest.approx(7 / 5)
    assert seen.seconds_above_alert_plus_1 == pytest.approx(5 / 5)
    assert seen.seconds_at_or_above_critical == pytest.approx(2 / 5)
    assert seen.longest_critical_seconds == pytest.approx(2 / 5)
    assert (seen.peak_celsius, seen.peak_memory_celsius) == (85.9, 95.9)


def test_critical_spells_are_told_apart() -> None:
    seen = evaluate(made_run([(85, 60), (86, 60), (84, 60), (85, 60)]), "made", "regulated")
    assert seen.seconds_at_or_above_critical == pytest.approx(0.6)
    assert seen.longest_critical_seconds == pytest.approx(0.4)


def test_a_run_without_work_has_no_throughput_and_one_without_memory_sensor_no_peak() -> None:
    seen = evaluate(run(T4, scenario(60, step(0, 20, 0.0))), "idle", "regulated")
    assert seen.throughput_ratio is None
    assert seen.peak_memory_celsius is None


def test_the_peak_at_the_start_counts() -> None:
    world = scenario(60, step(0, 20, 0.0), sink=75.0)
    assert evaluate(run(T4, world), "cooling", "regulated").peak_celsius > 75.0


@pytest.mark.parametrize(
    ("world", "defined"),
    [
        (scenario(400, step(0, 30, 1.0)), True),
        (scenario(320, step(0, 30, 1.0)), False),
        (scenario(900, step(0, 30, 1.0), step(700, 40, 1.0)), False),
        (scenario(900, step(0, 30, 1.0), step(700, 30, 1.0)), True),
        (bursts(900, 30), False),
    ],
)
def test_a_swing_is_told_of_a_steady_end_alone(world: Scenario, defined: bool) -> None:
    swing = evaluate(run(T4, world), "any", "regulated").steady_peak_to_peak_celsius
    assert (swing is not None) is defined


# Recovery.


def held_low(judged: Scenario, seconds: float, card: CardModel = H100) -> Run:
    """A run under the least limit for so long, then at the original."""
    low = Judgement(ThermalState.ALERT, "", Settings(power_limit_watts=card.limit_minimum_watts))
    free = Judgement(ThermalState.NORMAL, "", UNTOUCHED)

    class Until:
        def decide(self, reading: Reading) -> Judgement:
            return low if reading.at_seconds < seconds - 0.01 else free

        def blind(self, at_seconds: float) -> Judgement:
            return low

        def adopt(self, authority: object, thresholds: object) -> None:
            pass

    return rehearse(card, judged, lambda authority, thresholds: Until())


def test_a_limit_that_was_never_lowered_has_no_recovery() -> None:
    assert recovery_seconds(run(T4, COOL)) is None


def test_a_card_that_needed_no_limit_was_kept_waiting_from_the_start() -> None:
    assert recovery_seconds(held_low(COOL, 100)) == pytest.approx(100)


def test_what_never_comes_back_is_told_up_to_the_end() -> None:
    assert recovery_seconds(held_low(COOL, 10_000)) == pytest.approx(600)


def test_where_heat_never_allows_it_there_is_none() -> None:
    """Held just under 78 C by the least limit: at the original it would be hotter at once."""
    judged = held_low(scenario(600, step(0, 50.5, 1.0)), 10_000)
    assert judged.moments[-1].die_celsius > 77
    assert recovery_seconds(judged) is None


def test_it_counts_from_when_the_plant_would_have_stayed_cool() -> None:
    """50 C until 300 s, then 10 C: by brute force over every second."""
    world = scenario(700, step(0, 50, 1.0), step(300, 10, 1.0))
    judged = held_low(world, 400)
    found = recovery_seconds(judged)
    assert found is not None
    moment = 400 - found
    assert 250 < moment < 310
    assert stays_cool(world, moment + 0.2)
    assert not stays_cool(world, moment - 0.2)


def stays_cool(world: Scenario, since: float) -> bool:
    plant, limits = World(H100, world), thresholds_for(H100)
    low = Settings(power_limit_watts=H100.limit_minimum_watts)
    while plant.seconds < world.duration_s:
        if plant.seconds >= since and plant.plant.die_celsius > limits.alert_celsius - 1:
            return False
        plant.step(UNTOUCHED if plant.seconds >= since else low)
    return True


def test_a_card_that_is_only_cool_long_after_its_return_recovered_at_once() -> None:
    world = scenario(900, step(0, 50, 1.0), step(500, 5, 1.0))
    assert recovery_seconds(held_low(world, 100)) == 0.0


def test_the_final_settings_are_told() -> None:
    seen = evaluate(run(T4, scenario(1200, step(0, 45, 1.0))), "hot", "regulated")
    assert seen.final_state == "alert"
    assert seen.final_limit_watts == 60
    assert seen.original_limit_watts == 70
    assert seen.final_sm_clock_mhz is not None
    assert seen.final_dispatch_duty == 1.0
    assert dataclasses.asdict(seen)["holdable"] is True


def test_stepped_leaves_an_h200_hot_where_regulated_does_not() -> None:
    world = scenario(600, step(0, 24, 1.0), sink=74.0)
    figures = {
        name: evaluate(run(H200, world, name), "hot sink", name).peak_celsius
        for name in ("regulated", "stepped")
    }
    assert figures["regulated"] < 85 < figures["stepped"]
