"""The plant under a scenario, with the work it gets done. Pure.

Throughput follows the measured curve of the plant; batch limit, dispatch duty and pauses multiply
it and take load off the card.
"""

import copy
from dataclasses import replace

from gpuwarden.plant.cards import CardModel
from gpuwarden.plant.physics import Environment, Plant, Reading, throughput_share
from gpuwarden.plant.physics import Settings as DriverSettings
from gpuwarden.plant.scenario import Scenario
from gpuwarden.thermal.decision import Settings

STEP_SECONDS = 0.2  # the guard's sampling period
MAX_BATCH = 4  # [workers] max_batch as it comes
# Work of a batch that takes the same time whatever its size, as a share of a full batch. With
# batches of 1 instead of 4 the articles' node answered 18 % later, its power limit included.
FIXED_BATCH_SHARE = 0.06
DUTY_PERIOD_SECONDS = 2.0


class World:
    """A card in its rack: steps through the scenario and counts what was asked and delivered.

    :ivar demanded: integral of the load, in seconds of full load.
    :ivar delivered: the same for the work that was done.
    """

    def __init__(self, card: CardModel, scenario: Scenario) -> None:
        self.card = card
        self.scenario = scenario
        first = replace(scenario.at(0.0), load=0.0)
        self.plant = Plant(card, first)
        self.plant.settle(first, None if scenario.initial is None else scenario.initial.sink_c)
        self.seconds = 0.0
        self.demanded = 0.0
        self.delivered = 0.0

    def fork(self) -> "World":
        """The same world, to be led elsewhere."""
        twin = copy.copy(self)
        twin.plant = self.plant.copy()
        return twin

    def step(self, settings: Settings) -> None:
        """Let 0.2 s pass under a guard's settings."""
        environment = self.scenario.at(self.seconds)
        share = 0.0 if self._rests(settings) else batch_share(settings.batch_limit)
        asked = environment.load
        under_load = replace(environment, load=asked * share)
        self.plant.step(STEP_SECONDS, under_load, driver_settings(self.card, settings))
        self.seconds += STEP_SECONDS
        demanded_watts = self.plant.demanded_watts(asked)
        self.demanded += asked * STEP_SECONDS
        if share > 0 and asked > 0 and not self.plant.shut_down:
            done = throughput_share(self.card, self.plant.watts, demanded_watts)
            self.delivered += asked * share * done * STEP_SECONDS

    def reading(self) -> Reading:
        """What the driver says now."""
        return self.plant.reading()

    def _rests(self, settings: Settings) -> bool:
        if settings.paused or settings.stop_requested:
            return True
        phase = self.seconds % DUTY_PERIOD_SECONDS
        return phase >= settings.dispatch_duty * DUTY_PERIOD_SECONDS


def batch_share(batch_limit: int | None) -> float:
    """Throughput with batches of at most ``batch_limit``, as a share of that with full ones."""
    if batch_limit is None or batch_limit >= MAX_BATCH:
        return 1.0
    full = MAX_BATCH / batch_limit
    return 1.0 / (FIXED_BATCH_SHARE * full + 1.0 - FIXED_BATCH_SHARE)


def driver_settings(card: CardModel, settings: Settings) -> DriverSettings:
    """A guard's settings as the driver gets them."""
    limit, clock = settings.power_limit_watts, settings.sm_clock_mhz
    memory = settings.memory_clock_mhz
    return DriverSettings(
        power_limit_watts=card.limit_default_watts if limit is None else limit,
        sm_lock_mhz=None if clock is None else (card.clocks.sm_minimum, clock),
        memory_lock_mhz=None if memory is None else (card.clocks.memory[-1], memory),
    )


def idle_environment(scenario: Scenario) -> Environment:
    """The world before time 0: the first step's inlet, nothing to do."""
    return replace(scenario.at(0.0), load=0.0)
