# SPDX-License-Identifier: Apache-2.0
"""The scenarios of the thermal table: those that are shipped, moved to where cards get hot."""

from dataclasses import dataclass
from pathlib import Path

from gpuwarden.plant.cards import PRESETS
from gpuwarden.plant.scenario import Scenario, load_scenario

SHIPPED = Path(__file__).parents[2] / "packaging" / "scenarios"

# By how much warmer the inlet is than the file says: a server card needs 45 C to get hot at all,
# a workstation's is hot at 24 C.
WARMER_CELSIUS: dict[str, tuple[int, ...]] = {
    "steady-load": (0, 8, 21),
    "bursts": (8, 16),
    "warm-half-hour": (8, 16),
    "warming-room": (0,),
    "fan-failure": (0, 8),
    "load-step": (8, 16),
    "load-step-hot-sink": (0, 8),
    "hot-spell": (0,),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One card in one scenario.

    :ivar warmer_celsius: than the shipped file, over the whole of it.
    """

    card: str
    scenario: str
    warmer_celsius: int

    def __str__(self) -> str:
        return f"{self.card} {self.name}"

    @property
    def name(self) -> str:
        """The scenario and the inlet that it begins with."""
        return f"{self.scenario} {self.world().steps[0].ambient_c:.0f} C"

    def world(self) -> Scenario:
        """The scenario."""
        return warmer(load_scenario(SHIPPED / f"{self.scenario}.json"), self.warmer_celsius)


def warmer(scenario: Scenario, celsius: float) -> Scenario:
    """The same with a warmer inlet."""
    steps = [
        step.model_copy(update={"ambient_c": step.ambient_c + celsius}) for step in scenario.steps
    ]
    return scenario.model_copy(update={"steps": steps})


SAMPLE_EACH = 5


def sample() -> list[Case]:
    """A fifth of the cases: each scenario and inlet on some cards, each card in some scenarios."""
    shifts = sum(map(len, WARMER_CELSIUS.values()))
    return [
        case
        for number, case in enumerate(cases())
        if (number // shifts + number % shifts) % SAMPLE_EACH == 0
    ]


def cases() -> list[Case]:
    """All of them, card by card."""
    return [
        Case(card, scenario, warmer_celsius)
        for card in PRESETS
        for scenario, shifts in WARMER_CELSIUS.items()
        for warmer_celsius in shifts
    ]
