# SPDX-License-Identifier: Apache-2.0
"""Cards on which nothing can be set: rests hold the mean, batches stay as long as peaks allow."""

from dataclasses import dataclass, field, replace
from statistics import fmean

import pytest

from gpuwarden.gateway.duty import DutyMeter
from gpuwarden.plant.cards import PRESETS, CardModel
from gpuwarden.plant.physics import Environment, Plant
from gpuwarden.plant.physics import Settings as DriverSettings
from gpuwarden.thermal.decision import Authority, Judgement, Reading
from gpuwarden.thermal.policy.regulated import Regulated
from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.values import ThermalState

STEP_SECONDS = 0.02
SAMPLE_STEPS = 10
MAX_BATCH = 4
CRITICAL_CELSIUS = 95.0


def thresholds(alert: float, critical: float = CRITICAL_CELSIUS) -> Thresholds:
    return Thresholds(alert, critical, alert - 6, None, None)


@dataclass
class Worked:
    """A virtual GPU under work without end, with its guard and its front door's meter."""

    card: CardModel
    load: float
    batch_seconds: float
    seconds: float = 0.0
    dies: list[float] = field(default_factory=list)
    judgement: Judgement | None = None
    busy_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._air = Environment(context_open=True)
        self._plant = Plant(self.card, self._air)
        self._plant.settle(self._air, None)
        self._authority = Authority(rated_watts=self.card.limit_default_watts, max_batch=MAX_BATCH)
        self._policy = Regulated(self._authority, thresholds(90))
        self._meter = DutyMeter()
        self._driver = DriverSettings(self.card.limit_default_watts)
        self._ends: float | None = None
        self._steps = 0

    def alert_at(self, alert: float, critical: float = CRITICAL_CELSIUS) -> None:
        self._policy.adopt(self._authority, thresholds(alert, critical))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            self._serve()
            if self._steps % SAMPLE_STEPS == 0:
                self._look()
            load = 0.0 if self._ends is None else self.load
            self.busy_seconds += STEP_SECONDS * (load > 0)
            self._plant.step(STEP_SECONDS, replace(self._air, load=load), self._driver)
            self._steps += 1
            self.seconds = self._steps * STEP_SECONDS

    def mean(self, seconds: float = 10.0) -> float:
        return fmean(self.dies[-round(seconds / STEP_SECONDS / SAMPLE_STEPS) :])

    def _serve(self) -> None:
        if self._ends is not None and self.seconds >= self._ends:
            started = self._ends - self.batch_seconds
            self._meter.batch_ended(started, self.batch_seconds, self.seconds)
            self._meter.set_running(0, self.seconds)
            self._ends = None
        if self._ends is None and self._meter.permits(0, self.seconds):
            self._ends = self.seconds + self.batch_seconds
            self._meter.set_running(1, self.seconds)

    def _look(self) -> None:
        seen = self._plant.reading()
        self.dies.append(seen.temperature_celsius)
        reading = Reading(self.seconds, seen.temperature_celsius, power_watts=seen.instant_watts)
        self.judgement = self._policy.decide(reading)
        self._meter.set_duty(self.judgement.settings.dispatch_duty, self.seconds)


CASES = [
    pytest.param("H200", 0.45, 0.3, 50.0, id="H200: most of the rise within a second"),
    pytest.param("3090", 1.0, 0.5, 58.0, id="3090: most of it in a minute"),
    pytest.param("T4", 1.0, 1.0, 66.0, id="T4: nearly all of it in minutes"),
    pytest.param("A4000", 1.0, 0.5, 70.0, id="A4000"),
]


@pytest.mark.parametrize(("preset", "load", "batch_seconds", "alert"), CASES)
def test_the_mean_of_ten_seconds_is_held(
    preset: str, load: float, batch_seconds: float, alert: float
) -> None:
    card = Worked(PRESETS[preset], load, batch_seconds)
    card.run(400)
    assert card.mean() > alert + 2, "it is hotter without"
    card.alert_at(alert)
    card.run(240)
    means = []
    for _ in range(18):
        card.run(10)
        means.append(card.mean())
    assert max(means) <= alert + 0.5
    assert min(means) >= alert - 2.5, "and no cooler than need be"
    assert card.judgement is not None
    assert card.judgement.state is ThermalState.ALERT
    assert card.judgement.settings.batch_limit is None, "batches would cost answers and cool little"
    assert card.judgement.settings.dispatch_duty < 1


def test_a_lowered_threshold_is_met_within_a_minute_and_what_was_taken_comes_back() -> None:
    card = Worked(PRESETS["H200"], 0.45, 0.3)
    card.run(120)
    card.alert_at(50)
    card.run(60)
    assert card.mean() <= 51
    card.alert_at(90)
    card.run(30)
    assert card.judgement is not None
    assert card.judgement.settings.dispatch_duty == 1
    card.run(60)
    assert card.judgement.state is ThermalState.NORMAL


def test_batches_shrink_for_peaks_near_critical_and_grow_again() -> None:
    card = Worked(PRESETS["H200"], 0.45, 3.0)
    card.run(60)
    peak = max(card.dies)
    card.alert_at(peak - 6, peak + 2)
    card.run(30)
    assert card.judgement is not None
    assert card.judgement.settings.batch_limit == 1
    card.alert_at(peak - 6, peak + 20)
    card.run(120)
    assert card.judgement.settings.batch_limit is None
    assert card.judgement.settings.dispatch_duty < 1


def test_an_unreachable_threshold_leaves_some_work_in_the_smallest_batches() -> None:
    card = Worked(PRESETS["H200"], 0.45, 0.3)
    card.alert_at(20)
    card.run(300)
    assert card.judgement is not None
    assert card.judgement.settings.batch_limit == 1
    assert card.judgement.settings.dispatch_duty == pytest.approx(0.05)
    before = card.busy_seconds
    card.run(100)
    assert card.busy_seconds > before


@pytest.mark.parametrize(("max_batch", "limit"), [(8, 2), (2, None), (1, None)])
def test_a_limit_of_batches_goes_where_the_configured_size_is_no_larger_any_more(
    max_batch: int, limit: int | None
) -> None:
    means = Authority(None, 0.0, None, None, None, MAX_BATCH, None)
    policy = Regulated(means, thresholds(80.0))
    hot = Reading(0.0, CRITICAL_CELSIUS - 0.5, None, 60.0)
    for second in range(8):
        judgement = policy.decide(replace(hot, at_seconds=float(second)))
    assert judgement.settings.batch_limit == 2
    policy.adopt(replace(means, max_batch=max_batch), thresholds(80.0))
    assert policy.decide(replace(hot, at_seconds=8.0)).settings.batch_limit == limit
