# SPDX-License-Identifier: Apache-2.0
"""Scenarios in a line each, and rehearsals of them."""

from gpuwarden.plant.cards import CardModel
from gpuwarden.plant.scenario import Initial, Scenario, Step
from gpuwarden.simulate.rehearsal import Run, rehearse
from gpuwarden.thermal.decision import Authority
from gpuwarden.thermal.policy import make_policy
from gpuwarden.thermal.thresholds import Thresholds


def scenario(seconds: float, *steps: Step, sink: float | None = None) -> Scenario:
    initial = None if sink is None else Initial(sink_c=sink)
    return Scenario(duration_s=seconds, initial=initial, steps=list(steps))


def step(at: float, inlet: float, load: float, resistance: float = 1.0) -> Step:
    return Step(at_s=at, ambient_c=inlet, load=load, resistance_factor=resistance)


def bursts(seconds: int, inlet: float) -> Scenario:
    """A minute of full load, half a minute of none."""
    steps = []
    for at in range(0, seconds, 90):
        steps += [step(at, inlet, 1.0), step(at + 60, inlet, 0.0)]
    return scenario(seconds, *steps)


def run(
    card: CardModel,
    world: Scenario,
    name: str = "regulated",
    *,
    authority: Authority | None = None,
    thresholds: Thresholds | None = None,
    averaged_power: bool = False,
) -> Run:
    return rehearse(
        card,
        world,
        lambda means, limits: make_policy(name, means, limits),
        authority=authority,
        thresholds=thresholds,
        averaged_power=averaged_power,
    )
