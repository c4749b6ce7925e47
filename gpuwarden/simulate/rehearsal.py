# SPDX-License-Identifier: Apache-2.0
"""One run of a policy against a world, on a virtual clock. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gpuwarden.nvml.limits import CardLimits
from gpuwarden.plant.cards import CardModel
from gpuwarden.plant.physics import ClockReason
from gpuwarden.plant.physics import Reading as DriverReading
from gpuwarden.plant.scenario import Scenario
from gpuwarden.simulate.work import MAX_BATCH
from gpuwarden.simulate.world import STEPS_PER_SECOND, World, steps_of
from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Policy, Reading
from gpuwarden.thermal.thresholds import Thresholds, thresholds_of
from gpuwarden.values import ThermalState

BEFORE_SECONDS = 60  # contract: the policy has run that long when the scenario begins
WORLD_EVERY_SECONDS = 10

PolicyMaker = Callable[[Authority, Thresholds], Policy]


@dataclass(frozen=True, slots=True)
class Moment:
    """One sample of the run: unrounded degrees of the plant, the driver's reading, settings.

    :ivar seconds: since time 0; the first sample is at 0.2.
    :ivar judgement: what the policy answered to this sample; in force from here on.
    """

    seconds: float
    die_celsius: float
    memory_celsius: float | None
    reading_celsius: int
    memory_reading_celsius: int | None
    watts: float
    load: float
    judgement: Judgement


@dataclass(slots=True)
class Run:
    """A finished run.

    :ivar first: the policy's answer when the scenario begins.
    :ivar writes: changes of the card's own settings since time 0.
    :ivar worlds: the world at time 0, each ``WORLD_EVERY_SECONDS`` after, and at the end.
    :ivar throughput_ratio: share of the work asked for that was done; None where none was.
    """

    card: CardModel
    scenario: Scenario
    thresholds: Thresholds
    first: Judgement
    moments: list[Moment] = field(default_factory=list)
    writes: int = 0
    throughput_ratio: float | None = None
    worlds: list[World] = field(default_factory=list)


def card_limits(card: CardModel) -> CardLimits:
    """What the card's driver would say of it."""
    limits = card.thresholds
    return CardLimits(
        maximum_operating_celsius=limits.maximum_operating,
        slowdown_celsius=limits.slowdown,
        shutdown_celsius=limits.shutdown,
        memory_maximum_celsius=limits.memory_maximum,
        power_minimum_watts=card.limit_minimum_watts,
        power_maximum_watts=card.limit_maximum_watts,
        power_default_watts=card.limit_default_watts,
    )


def thresholds_for(card: CardModel) -> Thresholds:
    """The thresholds that the guard takes for this card by itself."""
    return thresholds_of(card_limits(card))


def authority_over(card: CardModel) -> Authority:
    """All means that a guard has on this card, its limit at the default."""
    return Authority(
        original_watts=card.limit_default_watts,
        minimum_watts=card.limit_minimum_watts,
        sm_clocks_mhz=(card.clocks.sm_minimum, card.clocks.sm_maximum),
        max_batch=MAX_BATCH,
        shutdown_celsius=card.thresholds.shutdown,
    )


def rehearse(
    card: CardModel,
    scenario: Scenario,
    make_policy: PolicyMaker,
    *,
    authority: Authority | None = None,
    thresholds: Thresholds | None = None,
    averaged_power: bool = False,
) -> Run:
    """Let the policy guard the card through the scenario.

    :param authority: what of the card can be moved, default: all of it.
    :param thresholds: default: the card's own.
    :param averaged_power: the driver knows the mean of the last second alone (old drivers).
    """
    world = World(card, scenario)
    thresholds = thresholds or thresholds_for(card)
    policy = make_policy(authority or authority_over(card), thresholds)
    judgement = Judgement(ThermalState.NORMAL, "", UNTOUCHED)
    reading = world.reading()
    for number in range(-BEFORE_SECONDS * STEPS_PER_SECOND, 1):
        # The card stands settled: what the policy sees doesn't change, only its clock does.
        judgement = policy.decide(look(reading, number / STEPS_PER_SECOND, averaged_power))
    run = Run(card, scenario, thresholds, judgement)
    for number in range(steps_of(scenario)):
        if number % (WORLD_EVERY_SECONDS * STEPS_PER_SECOND) == 0:
            run.worlds.append(world.fork())
        world.step(judgement.settings)
        reading = world.reading()
        before, judgement = judgement, policy.decide(look(reading, world.seconds, averaged_power))
        run.writes += writes_between(before, judgement)
        run.moments.append(moment(world, reading, judgement))
    run.worlds.append(world)
    run.throughput_ratio = world.throughput_ratio
    return run


def look(reading: DriverReading, at_seconds: float, averaged_power: bool) -> Reading:
    """The driver's reading as the guard's sampler hands it to a policy."""
    return Reading(
        at_seconds=at_seconds,
        die_celsius=reading.temperature_celsius,
        memory_celsius=reading.memory_temperature_celsius,
        power_watts=reading.average_watts if averaged_power else reading.instant_watts,
        power_averaged=averaged_power,
        sm_clock_mhz=reading.sm_mhz,
        slowed_by_hardware=ClockReason.HW_THERMAL_SLOWDOWN in reading.reasons,
    )


def moment(world: World, reading: DriverReading, judgement: Judgement) -> Moment:
    """What is kept of one step."""
    plant = world.plant
    return Moment(
        seconds=world.seconds,
        die_celsius=plant.die_celsius,
        memory_celsius=plant.memory_celsius,
        reading_celsius=reading.temperature_celsius,
        memory_reading_celsius=reading.memory_temperature_celsius,
        watts=plant.watts,
        load=world.environment.load,
        judgement=judgement,
    )


def writes_between(before: Judgement, after: Judgement) -> int:
    """How many of the card's own settings differ."""
    old, new = before.settings, after.settings
    return (
        (old.power_limit_watts != new.power_limit_watts)
        + (old.sm_clock_mhz != new.sm_clock_mhz)
        + (old.memory_clock_mhz != new.memory_clock_mhz)
    )
