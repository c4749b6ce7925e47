# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.plant.cards import H200, RTX_3090, T4
from gpuwarden.simulate.rehearsal import rehearse
from gpuwarden.simulate.work import BATCH_SECONDS, Shift, batch_share
from gpuwarden.simulate.world import World
from gpuwarden.thermal.decision import UNTOUCHED, Judgement, Reading, Settings
from gpuwarden.values import ThermalState
from tests.unit.thermal.worlds import scenario, step

LOADED = scenario(600, step(0, 24, 1.0))


def throughput(settings: Settings, seconds: int = 300) -> float:
    world = World(RTX_3090, LOADED)
    for _ in range(seconds * 5):
        world.step(settings)
    assert world.throughput_ratio is not None
    return world.throughput_ratio


class Watching:
    """Notes what it is shown and sets nothing."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def decide(self, reading: Reading) -> Judgement:
        self.readings.append(reading)
        return Judgement(ThermalState.NORMAL, "", UNTOUCHED)

    def blind(self, at_seconds: float) -> Judgement:
        raise AssertionError

    def adopt(self, authority: object, thresholds: object) -> None:
        raise AssertionError


def test_the_policy_runs_for_a_minute_on_a_settled_idle_card_first() -> None:
    policy = Watching()
    rehearse(T4, scenario(10, step(0, 35, 1.0)), lambda authority, thresholds: policy)
    before = [each for each in policy.readings if each.at_seconds <= 0]
    assert before[0].at_seconds == -60
    assert len(before) == 301
    assert len({(each.die_celsius, each.power_watts) for each in before}) == 1
    assert 35 < before[0].die_celsius < 45
    times = [each.at_seconds for each in policy.readings]
    assert times == pytest.approx([number / 5 for number in range(-300, 51)])


def test_a_hot_sink_is_held_meanwhile() -> None:
    policy = Watching()
    world = scenario(10, step(0, 24, 0.0), sink=70.0)
    finished = rehearse(T4, world, lambda authority, thresholds: policy)
    before = {each.die_celsius for each in policy.readings if each.at_seconds <= 0}
    assert before == {70.0}
    assert finished.worlds[0].plant.sink_celsius == 70.0


@pytest.mark.parametrize("averaged", [False, True])
def test_the_power_is_seen_as_the_driver_has_it(averaged: bool) -> None:
    policy = Watching()
    world = scenario(2, step(0, 24, 1.0))
    rehearse(H200, world, lambda authority, thresholds: policy, averaged_power=averaged)
    after = {each.at_seconds: each.power_watts for each in policy.readings}
    assert all(each.power_averaged is averaged for each in policy.readings)
    rose = after[0.4]
    assert rose is not None
    assert (rose < 400) is averaged


def test_the_plants_clock_does_not_drift_off_the_scenarios() -> None:
    world = World(T4, scenario(7200, step(0, 20, 0.0), step(3600, 20, 1.0)))
    for _ in range(3600 * 5):
        world.step(UNTOUCHED)
    assert world.seconds == 3600
    assert world.environment.load == 1.0


def test_batches_duty_and_pauses_multiply_the_throughput() -> None:
    assert throughput(UNTOUCHED) == pytest.approx(1, abs=0.002)
    assert throughput(Settings(batch_limit=1)) == pytest.approx(batch_share(1), abs=0.005)
    half = throughput(Settings(dispatch_duty=0.5))
    assert half == pytest.approx(0.5, abs=0.03)
    both = throughput(Settings(batch_limit=1, dispatch_duty=0.5))
    assert both == pytest.approx(half * batch_share(1), abs=0.02)
    assert throughput(Settings(paused=True)) == 0


def test_half_the_power_does_what_the_measured_curve_says() -> None:
    """A 3090 did 64 of 103 tokens a second at 175 of 350 W."""
    assert throughput(Settings(power_limit_watts=175)) == pytest.approx(64 / 103, abs=0.02)


def test_smaller_batches_do_less() -> None:
    shares = [batch_share(limit) for limit in (None, 4, 3, 2, 1)]
    assert shares == sorted(shares, reverse=True)
    assert shares[:2] == [1.0, 1.0]
    assert shares[-1] == pytest.approx(1 / 1.18)


@pytest.mark.parametrize("duty", [0.05, 0.3, 0.5, 0.77, 0.95])
def test_any_duty_is_held_over_a_minute(duty: float) -> None:
    shift, settings = Shift(), Settings(dispatch_duty=duty)
    worked = sum(shift.works(settings, number / 5) for number in range(1500)) / 1500
    assert worked == pytest.approx(duty, abs=0.05)


def test_what_has_begun_is_finished_before_a_pause() -> None:
    shift = Shift()
    assert shift.works(UNTOUCHED, 0.0)
    after = [shift.works(Settings(paused=True), number / 5) for number in range(1, 10)]
    assert sum(after) == round(BATCH_SECONDS * 5) - 1
    assert not after[-1]


def test_stopped_workers_finish_nothing() -> None:
    shift = Shift()
    assert shift.works(UNTOUCHED, 0.0)
    assert not shift.works(Settings(paused=True, stop_requested=True), 0.2)


def test_a_fork_goes_its_own_way() -> None:
    world = World(H200, LOADED)
    for _ in range(50):
        world.step(Settings(dispatch_duty=0.5))
    twin = world.fork()
    for _ in range(50):
        twin.step(Settings(paused=True))
        world.step(Settings(dispatch_duty=0.5))
    same = World(H200, LOADED)
    for _ in range(100):
        same.step(Settings(dispatch_duty=0.5))
    assert world.plant.die_celsius == same.plant.die_celsius
    assert world.delivered == same.delivered
    assert twin.delivered < world.delivered
