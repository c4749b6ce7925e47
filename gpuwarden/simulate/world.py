# SPDX-License-Identifier: Apache-2.0
"""The plant under a scenario, with the work it gets done. Pure.

Throughput follows the measured curve of the plant; batch limit, dispatch duty and pauses multiply
it and take load off the card.
"""

import copy
from dataclasses import replace

from gpuwarden.plant.cards import CardModel
from gpuwarden.plant.physics import Plant, Reading, throughput_share
from gpuwarden.plant.physics import Settings as DriverSettings
from gpuwarden.plant.scenario import Scenario
from gpuwarden.simulate.work import Shift, batch_share
from gpuwarden.thermal.decision import Settings

STEPS_PER_SECOND = 5  # the guard's sampling rate
STEP_SECONDS = 1 / STEPS_PER_SECOND


class World:
    """A card in its rack, settled and idle at time 0: steps through the scenario and counts.

    :ivar environment: the world of this moment.
    :ivar demanded: integral of the load, in seconds of full load.
    :ivar delivered: the same for the work that was done.
    """

    def __init__(self, card: CardModel, scenario: Scenario) -> None:
        self.card = card
        self.scenario = scenario
        self.environment = scenario.at(0.0)
        idle = replace(self.environment, load=0.0)
        self.plant = Plant(card, idle)
        self.plant.settle(idle, None if scenario.initial is None else scenario.initial.sink_c)
        self.demanded = 0.0
        self.delivered = 0.0
        self._shift = Shift()
        self._steps = 0  # whole ones: seconds added up would drift off the scenario's

    @property
    def seconds(self) -> float:
        """Since time 0."""
        return self._steps / STEPS_PER_SECOND

    def fork(self) -> "World":
        """The same world, to be led elsewhere."""
        twin = copy.copy(self)
        twin.plant = self.plant.copy()
        twin._shift = self._shift.copy()
        return twin

    def step(self, settings: Settings) -> None:
        """Let 0.2 s pass under a guard's settings."""
        asked = self.environment
        works = self._shift.works(settings, self.seconds)
        share = batch_share(settings.batch_limit) if works else 0.0
        given = asked if share == 1.0 else replace(asked, load=asked.load * share)
        self.plant.step(STEP_SECONDS, given, driver_settings(self.card, settings))
        self._pass()
        self.demanded += asked.load * STEP_SECONDS
        if given.load > 0 and not self.plant.shut_down:
            wanted = self.plant.demanded_watts(given.load)
            done = throughput_share(self.card, self.plant.watts, wanted)
            self.delivered += given.load * done * STEP_SECONDS

    def step_plant(self, settings: DriverSettings) -> None:
        """Let 0.2 s pass under driver settings, all that is asked for being tried; not counted."""
        self.plant.step(STEP_SECONDS, self.environment, settings)
        self._pass()

    @property
    def throughput_ratio(self) -> float | None:
        """Share of what was asked so far; None if that is nothing."""
        return self.delivered / self.demanded if self.demanded > 0 else None

    def reading(self) -> Reading:
        """What the driver says now."""
        return self.plant.reading()

    def _pass(self) -> None:
        self._steps += 1
        self.environment = self.scenario.at(self.seconds)


def steps_of(scenario: Scenario) -> int:
    """How many steps the scenario lasts; a rest of one counts whole."""
    return max(1, round(scenario.duration_s * STEPS_PER_SECOND))


def driver_settings(card: CardModel, settings: Settings) -> DriverSettings:
    """A guard's settings as the driver gets them."""
    limit, clock = settings.power_limit_watts, settings.sm_clock_mhz
    memory = settings.memory_clock_mhz
    return DriverSettings(
        power_limit_watts=card.limit_default_watts if limit is None else limit,
        sm_lock_mhz=None if clock is None else (card.clocks.sm_minimum, clock),
        memory_lock_mhz=None if memory is None else (card.clocks.memory[-1], memory),
    )
