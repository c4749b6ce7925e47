# SPDX-License-Identifier: Apache-2.0
import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.plant.cards import A100, H200, PRESETS, RTX_3090, T4, CardModel
from gpuwarden.plant.physics import (
    ClockReason,
    Environment,
    Plant,
    Settings,
    throughput_share,
)

STEP_FILE = Path(__file__).parent / "data" / "h200_step.csv"
AVERAGE_SECONDS = 1.25  # the recorded power is a 1 s mean, refreshed every 0.1 to 0.2 s
EXCEPTED_SECONDS = 0.41  # the file does not resolve the load changes themselves
TOLERANCE_CELSIUS = 2.0

cards = st.sampled_from(list(PRESETS.values()))


def at_default(card: CardModel) -> Settings:
    return Settings(power_limit_watts=card.limit_default_watts)


class Recording:
    """The recorded load step: one row each 0.2 s."""

    def __init__(self) -> None:
        with STEP_FILE.open(encoding="ascii") as file:
            rows = list(csv.DictReader(file))
        self.seconds = [float(row["t_s"]) for row in rows]
        self.duty = [float(row["duty"]) for row in rows]
        self.die = [int(row["gpu_c"]) for row in rows]
        self.memory = [int(row["hbm_c"]) for row in rows]
        self.watts = [float(row["power_w"]) for row in rows]
        self.changes = [
            number
            for number, (before, after) in enumerate(pairwise(self.duty), 1)
            if before != after
        ]
        for change in self.changes:
            self._undo_average(change)

    def _undo_average(self, change: int) -> None:
        """Put the level that the 1 s mean ends at from the change on."""
        end = self.seconds[change] + AVERAGE_SECONDS
        settled = next(i for i, second in enumerate(self.seconds) if second > end)
        for number in range(change, settled):
            self.watts[number] = self.watts[settled]

    def counts(self, number: int) -> bool:
        """Whether a row is in the idle, full-load or cooling part and away from a change."""
        near = any(
            abs(self.seconds[number] - self.seconds[change]) <= EXCEPTED_SECONDS
            for change in self.changes
        )
        return self.duty[number] != 0.5 and not near


def replay(recording: Recording) -> list[tuple[int, float, float]]:
    """Row, die and HBM of the plant under the recorded watts."""
    plant = Plant(H200)
    nodes = H200.thermal
    air = Environment().ambient_celsius + nodes.inlet_offset_celsius
    sink = air + nodes.sink_resistance * recording.watts[0]
    plant.settle_at(recording.watts[0], sink, sink + nodes.die_resistance * recording.watts[0], air)
    result = []
    for number, (now, then) in enumerate(pairwise(recording.seconds)):
        assert plant.memory_celsius is not None
        result.append((number, plant.die_celsius, plant.memory_celsius))
        plant.step_at_watts(then - now, recording.watts[number], Environment())
    return result


def test_h200_stays_within_two_degrees_of_the_recorded_card() -> None:
    recording = Recording()
    compared = 0
    for number, die, memory in replay(recording):
        if recording.counts(number):
            compared += 1
            for simulated, measured in (
                (die, recording.die[number]),
                (memory, recording.memory[number]),
            ):
                assert abs(simulated - measured) <= TOLERANCE_CELSIUS, recording.seconds[number]
                assert abs(math.floor(simulated) - measured) <= TOLERANCE_CELSIUS
    assert compared > 1400


def test_h200_in_charge_of_its_driver_draws_and_clocks_what_the_real_one_did() -> None:
    plant = Plant(H200)
    assert plant.reading().instant_watts == pytest.approx(122.4, abs=3)
    plant.step(150, Environment(load=1.0), at_default(H200))
    reading = plant.reading()
    assert reading.average_watts == pytest.approx(692, abs=10)
    assert reading.sm_mhz == pytest.approx(1500, abs=100)
    assert ClockReason.SW_POWER_CAP in reading.reasons


@given(card=cards, seconds=st.floats(0.01, 30), load=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_one_long_step_equals_many_short_ones(card: CardModel, seconds: float, load: float) -> None:
    one, many = Plant(card), Plant(card)
    world = Environment(load=load, context_open=True)
    one.step(seconds, world, at_default(card))
    for _ in range(7):
        many.step(seconds / 7, world, at_default(card))
    # A step sees the watts of its end for all of its length: of the die's own jump at full load at
    # most 5 % where one step of a tenth of a second stands for all of the jump.
    jump = card.thermal.die_resistance * (card.power.full_load_watts - card.power.idle_watts)
    assert one.die_celsius == pytest.approx(many.die_celsius, abs=0.06 * jump)
    assert one.sink_celsius == pytest.approx(many.sink_celsius, abs=0.3)


@given(
    card=cards,
    worlds=st.lists(
        st.builds(
            Environment,
            ambient_celsius=st.floats(-10, 60),
            load=st.floats(0, 1),
            resistance_factor=st.floats(0.5, 3),
            context_open=st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    share=st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_physics_stays_sane_in_any_weather(
    card: CardModel, worlds: list[Environment], share: float
) -> None:
    plant = Plant(card)
    span = card.limit_maximum_watts - card.limit_minimum_watts
    limit = card.limit_minimum_watts + share * span
    for world in worlds:
        plant.step(20, world, Settings(limit))
        floor = min(each.ambient_celsius for each in worlds)
        assert plant.die_celsius >= min(floor, 24) - 1
        assert plant.die_celsius >= plant.sink_celsius - 0.01 or plant.watts < 1
        assert 0 <= plant.watts <= limit * 1.001 + card.power.idle_watts
        assert plant.reading().average_watts >= 0
        if plant.shut_down:
            assert plant.watts == pytest.approx(0, abs=1)


@given(card=cards, load=st.floats(0.2, 1), low=st.floats(0, 1), high=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_lower_limit_never_makes_a_card_hotter(
    card: CardModel, load: float, low: float, high: float
) -> None:
    span = card.limit_maximum_watts - card.limit_minimum_watts
    cool, hot = Plant(card), Plant(card)
    least, most = sorted((low, high))
    world = Environment(load=load, context_open=True)
    cool.step(120, world, Settings(card.limit_minimum_watts + least * span))
    hot.step(120, world, Settings(card.limit_minimum_watts + most * span))
    assert cool.die_celsius <= hot.die_celsius + 0.5


@pytest.mark.parametrize("card", PRESETS.values(), ids=PRESETS)
def test_every_card_settles_at_its_total_resistance(card: CardModel) -> None:
    plant = Plant(card)
    for _ in range(6000):
        plant.step_at_watts(0.2, 100, Environment(ambient_celsius=24))
    expected = 24 + card.thermal.inlet_offset_celsius + 100 * card.thermal.total_resistance
    assert plant.die_celsius == pytest.approx(expected, abs=0.01)


def test_clock_lock_has_authority_where_the_power_limit_has_none() -> None:
    limited, locked = Plant(T4), Plant(T4)
    world = Environment(load=1.0, ambient_celsius=32)
    limited.step(900, world, Settings(T4.limit_minimum_watts))
    locked.step(900, world, Settings(T4.limit_default_watts, sm_lock_mhz=(300, 900)))
    assert limited.die_celsius > 73
    assert locked.die_celsius < 62
    assert locked.reading().sm_mhz == 900


def test_memory_lock_lowers_the_memory_clock_and_the_watts() -> None:
    plain, locked = Plant(RTX_3090), Plant(RTX_3090)
    world = Environment(load=0.5)
    plain.step(30, world, at_default(RTX_3090))
    locked.step(30, world, Settings(350, memory_lock_mhz=(405, 810)))
    assert locked.reading().memory_mhz == 810
    assert locked.watts < plain.watts * 0.95


def test_driver_slows_down_then_halves_clocks_then_drops_the_card() -> None:
    plant = Plant(A100)
    seen = set()
    for ambient in range(24, 100):
        plant.step(60, Environment(load=1.0, ambient_celsius=ambient), at_default(A100))
        seen |= set(plant.reading().reasons)
        if plant.shut_down:
            break
    assert plant.shut_down
    assert {ClockReason.SW_THERMAL_SLOWDOWN, ClockReason.HW_THERMAL_SLOWDOWN} <= seen
    assert plant.violations.software_thermal_seconds > plant.violations.hardware_thermal_seconds > 0
    plant.step(5, Environment(load=1.0), at_default(A100))
    assert plant.watts == 0


def test_power_average_is_a_ramp_of_one_second_behind_the_instant() -> None:
    plant = Plant(RTX_3090)
    idle = plant.watts
    plant.step(0.5, Environment(load=1.0), at_default(RTX_3090))
    half = plant.reading()
    assert half.instant_watts > 0.9 * 350
    assert half.average_watts == pytest.approx((idle + 350) / 2, rel=0.2)
    plant.step(1.0, Environment(load=1.0), at_default(RTX_3090))
    assert plant.reading().average_watts == pytest.approx(plant.watts, rel=0.02)


def test_a_failed_fan_makes_the_sink_hotter_and_slower() -> None:
    good, failed = Plant(RTX_3090), Plant(RTX_3090)
    for plant, factor in ((good, 1.0), (failed, 1.6)):
        plant.step(61, Environment(load=0.5, resistance_factor=factor), at_default(RTX_3090))
    good_rise = good.sink_celsius - 24
    failed_rise = failed.sink_celsius - 24
    assert good_rise < failed_rise < 1.6 * good_rise


def test_energy_is_the_integral_of_the_watts() -> None:
    plant = Plant(A100)
    plant.step_at_watts(10, 200, Environment())
    plant.step_at_watts(5, 100, Environment())
    assert plant.energy_joules == pytest.approx(2500)


@given(card=cards, watts=st.floats(0, 1000), more=st.floats(0, 500), demanded=st.floats(1, 1000))
def test_throughput_never_falls_with_more_watts(
    card: CardModel, watts: float, more: float, demanded: float
) -> None:
    less_done = throughput_share(card, watts, demanded)
    more_done = throughput_share(card, watts + more, demanded)
    assert 0 <= less_done <= more_done <= 1


def test_throughput_follows_the_measured_3090() -> None:
    assert throughput_share(RTX_3090, 350, 350) == 1
    assert throughput_share(RTX_3090, 200, 350) == pytest.approx(83 / 103)
    assert throughput_share(RTX_3090, 150, 150) == 1
