# SPDX-License-Identifier: Apache-2.0
"""Cards within a wide range, what happens to them, and a policy that guards them step by step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from gpuwarden.plant.cards import PRESETS, CardModel, MemoryNode
from gpuwarden.plant.physics import Environment, Plant
from gpuwarden.plant.physics import Settings as DriverSettings
from gpuwarden.simulate.rehearsal import authority_over, thresholds_for
from gpuwarden.simulate.work import Shift, batch_share
from gpuwarden.simulate.world import driver_settings
from gpuwarden.thermal.decision import Authority, Judgement, Policy, Reading, Settings
from gpuwarden.thermal.policy import make_policy
from gpuwarden.thermal.thresholds import Thresholds

COOL_AIR_CELSIUS = 12.0
COOL_SECONDS = 900.0  # after which nothing of a hot hour is left in any of these sinks


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some seconds of the same world."""

    seconds: float
    world: Environment


@dataclass(frozen=True, slots=True)
class Case:
    """A card, what can be seen of it, what happens to it.

    :ivar power: ``instant``, ``averaged`` or ``none``.
    """

    card: CardModel
    stretches: tuple[Stretch, ...]
    tail_load: float
    sample_hertz: int
    decide_seconds: float
    power: str
    clock_seen: bool
    memory_seen: bool

    @property
    def thresholds(self) -> Thresholds:
        return thresholds_for(self.card)

    @property
    def authority(self) -> Authority:
        return authority_over(self.card)

    def make(self, name: str) -> Policy:
        return make_policy(
            name, self.authority, self.thresholds, decide_seconds=self.decide_seconds
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One sample and what was decided on it."""

    reading: Reading
    judgement: Judgement

    @property
    def settings(self) -> Settings:
        return self.judgement.settings


def guarded(case: Case, policy: Policy, *, tail: bool = True) -> Iterator[Step]:
    """The case step by step; with a long cool tail of light load at the end."""
    stretches = list(case.stretches)
    if tail:
        stretches.append(Stretch(COOL_SECONDS, Environment(COOL_AIR_CELSIUS, case.tail_load)))
    plant, shift = Plant(case.card, replace(stretches[0].world, load=0.0)), Shift()
    settings, now, period = Settings(), 0.0, 1.0 / case.sample_hertz
    for stretch in stretches:
        for _ in range(round(stretch.seconds * case.sample_hertz)):
            reading = read(case, plant, now)
            judgement = policy.decide(reading)
            yield Step(reading, judgement)
            settings = judgement.settings
            share = batch_share(settings.batch_limit) if shift.works(settings, now) else 0.0
            world = replace(stretch.world, load=stretch.world.load * share)
            plant.step(period, world, asked(case.card, settings))
            now += period


def asked(card: CardModel, settings: Settings) -> DriverSettings:
    return driver_settings(card, settings)


def read(case: Case, plant: Plant, now: float) -> Reading:
    seen = plant.reading()
    watts = {"instant": seen.instant_watts, "averaged": seen.average_watts}.get(case.power)
    return Reading(
        at_seconds=now,
        die_celsius=seen.temperature_celsius,
        memory_celsius=seen.memory_temperature_celsius if case.memory_seen else None,
        power_watts=watts,
        power_averaged=case.power == "averaged",
        sm_clock_mhz=seen.sm_mhz if case.clock_seen else None,
    )


def at_alert(thresholds: Thresholds, reading: Reading) -> bool:
    memory, alert = reading.memory_celsius, thresholds.memory_alert_celsius
    if memory is not None and alert is not None and memory >= alert:
        return True
    return reading.die_celsius >= thresholds.alert_celsius


def _scaled(card: CardModel, factors: tuple[float, ...], least_share: float) -> CardModel:
    die, die_lag, sink, sink_lag, hbm, full, idle = factors
    nodes = card.thermal
    memory: MemoryNode | None = nodes.memory
    if memory is not None:
        memory = replace(memory, resistance=memory.resistance * hbm)
    thermal = replace(
        nodes,
        die_resistance=nodes.die_resistance * die,
        die_seconds=nodes.die_seconds * die_lag,
        sink_resistance=nodes.sink_resistance * sink,
        sink_seconds=nodes.sink_seconds * sink_lag,
        memory=memory,
    )
    power = replace(
        card.power,
        full_load_watts=card.power.full_load_watts * full,
        idle_watts=card.power.idle_watts * idle,
    )
    least = max(1.0, round(card.limit_default_watts * least_share))
    return replace(card, thermal=thermal, power=power, limit_minimum_watts=least)


def cards() -> st.SearchStrategy[CardModel]:
    """Presets with a fast share of half to twice, and all else within as wide a range."""
    half_to_twice = st.floats(0.5, 2.0)
    factors = st.tuples(
        half_to_twice,
        half_to_twice,
        st.floats(0.6, 1.6),
        half_to_twice,
        half_to_twice,
        st.floats(0.6, 1.5),
        st.floats(0.5, 1.3),
    )
    return st.builds(
        _scaled, st.sampled_from(list(PRESETS.values())), factors, st.floats(0.1, 0.95)
    )


def stretches() -> st.SearchStrategy[Stretch]:
    world = st.builds(
        Environment,
        ambient_celsius=st.floats(10, 50),
        load=st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0, 1.0]),
        resistance_factor=st.sampled_from([1.0, 1.0, 1.6]),
        context_open=st.just(True),
    )
    return st.builds(Stretch, st.floats(2, 150), world)


def cases() -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        card=cards(),
        stretches=st.lists(stretches(), min_size=2, max_size=7).map(tuple),
        tail_load=st.sampled_from([0.0, 0.0, 0.15]),
        sample_hertz=st.sampled_from([1, 2, 5, 5, 10, 20]),
        decide_seconds=st.sampled_from([0.2, 0.5, 1.0, 2.0]),
        power=st.sampled_from(["instant", "instant", "averaged", "none"]),
        clock_seen=st.booleans(),
        memory_seen=st.booleans(),
    )
