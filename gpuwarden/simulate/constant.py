# SPDX-License-Identifier: Apache-2.0
"""The best that one constant setting could do, which a policy is measured against. Pure.

Held from before time 0, die and HBM, unrounded, must never pass their alert thresholds. Without a
clock lock, the highest limit in whole watts. Where even the least limit is too much, the clock lock
comes first: the highest clock at which the least limit suffices, then the highest limit with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gpuwarden.plant.cards import CardModel
from gpuwarden.plant.physics import Environment, Plant
from gpuwarden.plant.scenario import Scenario
from gpuwarden.simulate.world import World, driver_settings, steps_of
from gpuwarden.thermal.decision import Settings
from gpuwarden.thermal.thresholds import Thresholds

COARSE_SECONDS = 0.6  # three steps of the world at once, to find about where the best lies


@dataclass(frozen=True, slots=True)
class BestConstant:
    """A setting and what it gets done; no lock: None.

    :ivar throughput_ratio: share of what was asked; None where nothing was.
    """

    limit_watts: float
    sm_clock_mhz: int | None
    throughput_ratio: float | None


def is_holdable(card: CardModel, scenario: Scenario, thresholds: Thresholds) -> bool:
    """Whether any constant setting keeps the card at or below alert: if so, then the least."""
    least = Settings(
        power_limit_watts=card.limit_minimum_watts, sm_clock_mhz=card.clocks.sm_minimum
    )
    return holds(card, scenario, thresholds, least)


def best_constant(
    card: CardModel, scenario: Scenario, thresholds: Thresholds
) -> BestConstant | None:
    """The highest setting that holds; None where none does."""
    if not is_holdable(card, scenario, thresholds):
        return None
    search = _Search(card, scenario, thresholds)
    least, most = int(card.limit_minimum_watts), int(card.limit_default_watts)
    if search.holds(least, None):
        clock = None
    else:
        clocks = card.clocks
        steps = (clocks.sm_maximum - clocks.sm_minimum) // clocks.sm_step
        clock = clocks.sm_minimum + clocks.sm_step * search.highest(
            0, steps, lambda step: (least, clocks.sm_minimum + clocks.sm_step * step)
        )
    limit = search.highest(least, most, lambda watts: (watts, clock))
    return BestConstant(limit, clock, throughput(card, scenario, _settings(limit, clock)))


def holds(card: CardModel, scenario: Scenario, thresholds: Thresholds, settings: Settings) -> bool:
    """Whether the card, held there from before time 0, stays at or below alert throughout."""
    world = World(card, scenario)
    plant, wanted = world.plant, driver_settings(card, settings)
    if _is_above(plant, thresholds):
        return False
    for _ in range(steps_of(scenario)):
        world.step_plant(wanted)
        if _is_above(plant, thresholds):
            return False
    return True


def throughput(card: CardModel, scenario: Scenario, settings: Settings) -> float | None:
    """Share of the work that is done under a constant setting; None where none was asked for."""
    world = World(card, scenario)
    for _ in range(steps_of(scenario)):
        world.step(settings)
    return world.throughput_ratio


@dataclass(frozen=True, slots=True)
class _Search:
    """Among settings of which each draws more than the one before."""

    card: CardModel
    scenario: Scenario
    thresholds: Thresholds

    def holds(self, limit: int, clock: int | None) -> bool:
        return holds(self.card, self.scenario, self.thresholds, _settings(limit, clock))

    def highest(self, low: int, high: int, at: Callable[[int], tuple[int, int | None]]) -> int:
        """The highest number from ``low``, which holds, to ``high`` that holds.

        A coarse plant finds about where it is, the world itself exactly.
        """
        first, last = low, high + 1
        while last - first > 1:
            middle = (first + last) // 2
            if self._about_holds(*at(middle)):
                first = middle
            else:
                last = middle
        while first > low and not self.holds(*at(first)):
            first -= 1
        while first < high and self.holds(*at(first + 1)):
            first += 1
        return first

    def _about_holds(self, limit: int, clock: int | None) -> bool:
        world = World(self.card, self.scenario)
        plant, settings = world.plant, driver_settings(self.card, _settings(limit, clock))
        seconds = 0.0
        while seconds < self.scenario.duration_s:
            now: Environment = self.scenario.at(seconds)
            plant.step_at_watts(COARSE_SECONDS, plant.choose_watts(now, settings), now)
            seconds += COARSE_SECONDS
            if _is_above(plant, self.thresholds):
                return False
        return True


def _settings(limit: int, clock: int | None) -> Settings:
    return Settings(power_limit_watts=float(limit), sm_clock_mhz=clock)


def _is_above(plant: Plant, thresholds: Thresholds) -> bool:
    if plant.die_celsius > thresholds.alert_celsius:
        return True
    memory, alert = plant.memory_celsius, thresholds.memory_alert_celsius
    return memory is not None and alert is not None and memory > alert
