"""One run of a policy against a world, on a virtual clock. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gpuwarden.nvml.limits import CardLimits
from gpuwarden.plant.cards import CardModel
from gpuwarden.plant.physics import ClockReason
from gpuwarden.plant.scenario import Scenario
from gpuwarden.simulate.world import MAX_BATCH, STEP_SECONDS, World
from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Policy, Reading
from gpuwarden.thermal.thresholds import Thresholds, thresholds_of
from gpuwarden.values import ThermalState

BEFORE_SECONDS = 60.0  # contract: the policy has run that long when the scenario begins

PolicyMaker = Callable[[Authority, Thresholds], Policy]


@dataclass(frozen=True, slots=True)
class Moment:
    """One sample of the run: unrounded degrees of the plant, the driver's reading, settings."""

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

    :ivar writes: changes of the card's own settings since time 0.
    :ivar worlds: the world every ``WORLD_EVERY_SECONDS``, for what-if questions.
    """

    moments: list[Moment] = field(default_factory=list)
    writes: int = 0
    demanded: float = 0.0
    delivered: float = 0.0
    worlds: list[World] = field(default_factory=list)


WORLD_EVERY_SECONDS = 10.0


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


def rehearse(card: CardModel, scenario: Scenario, make_policy: PolicyMaker) -> Run:
    """Let the policy guard the card through the scenario."""
    world = World(card, scenario)
    policy = make_policy(authority_over(card), thresholds_for(card))
    judgement = Judgement(ThermalState.NORMAL, "", UNTOUCHED)
    for number in range(round(BEFORE_SECONDS / STEP_SECONDS)):
        # The card stands settled: what the policy sees doesn't change, only its clock does.
        judgement = policy.decide(look(world, number * STEP_SECONDS - BEFORE_SECONDS))
    run = Run()
    steps = round(scenario.duration_s / STEP_SECONDS)
    per_world = round(WORLD_EVERY_SECONDS / STEP_SECONDS)
    for number in range(steps):
        if number % per_world == 0:
            run.worlds.append(world.fork())
        world.step(judgement.settings)
        before, judgement = judgement, policy.decide(look(world, world.seconds))
        run.writes += writes_between(before, judgement)
        run.moments.append(moment(world, judgement))
    run.demanded, run.delivered = world.demanded, world.delivered
    return run


def look(world: World, at_seconds: float) -> Reading:
    """The plant's reading as the guard's sampler hands it to a policy."""
    reading = world.reading()
    return Reading(
        at_seconds=at_seconds,
        die_celsius=reading.temperature_celsius,
        memory_celsius=reading.memory_temperature_celsius,
        power_watts=reading.instant_watts,
        sm_clock_mhz=reading.sm_mhz,
        slowed_by_hardware=bool(reading.reasons & ClockReason.HW_THERMAL_SLOWDOWN),
    )


def moment(world: World, judgement: Judgement) -> Moment:
    """What is kept of one step."""
    reading, plant = world.reading(), world.plant
    return Moment(
        seconds=world.seconds,
        die_celsius=plant.die_celsius,
        memory_celsius=plant.memory_celsius,
        reading_celsius=reading.temperature_celsius,
        memory_reading_celsius=reading.memory_temperature_celsius,
        watts=plant.watts,
        load=world.scenario.at(world.seconds).load,
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
