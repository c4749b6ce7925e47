# SPDX-License-Identifier: Apache-2.0
"""What a policy is told about its card and what it answers. Pure.

A policy sees readings and never the card: the guard and ``gpuwarden simulate`` run the same one.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.values import ThermalState

FULL_DUTY = 1.0

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Reading:
    """One plausible look at the card.

    :ivar at_seconds: on a clock that only goes forward.
    :ivar power_averaged: the watts are a mean over the last second, not of this moment.
    :ivar sm_clock_mhz: what the SMs run at.
    :ivar slowed_by_hardware: the card halves its clocks because it is too hot.
    """

    at_seconds: float
    die_celsius: float
    memory_celsius: float | None = None
    power_watts: float | None = None
    power_averaged: bool = False
    sm_clock_mhz: float | None = None
    slowed_by_hardware: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """What can be moved on this card, and how far.

    :ivar original_watts: the administrator's power limit: the ceiling, and what comes back; None
        where the limit can't be set.
    :ivar rated_watts: what the card is built to draw; for scale only.
    :ivar sm_clocks_mhz: lowest and highest clock that the SMs can be locked to; None: they can't.
    :ivar memory_clock_mhz: what the memory is locked to while hot; None: it is left alone.
    :ivar max_batch: requests computed together on a cool card.
    :ivar shutdown_celsius: where the card turns itself off, if it says so.
    """

    original_watts: float | None = None
    minimum_watts: float = 0.0
    rated_watts: float | None = None
    sm_clocks_mhz: tuple[int, int] | None = None
    memory_clock_mhz: int | None = None
    max_batch: int = 1
    shutdown_celsius: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a guard sets; the defaults leave the card as the administrator had it.

    :ivar power_limit_watts: None: the original.
    :ivar sm_clock_mhz: highest SM clock; None: not locked.
    :ivar batch_limit: requests computed together; None: not limited.
    :ivar dispatch_duty: share of the time in which the card is given work, 0 to 1.
    :ivar paused: the card is given no new work.
    :ivar stop_requested: its workers are to be stopped.
    """

    power_limit_watts: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    batch_limit: int | None = None
    dispatch_duty: float = FULL_DUTY
    paused: bool = False
    stop_requested: bool = False


UNTOUCHED = Settings()


@dataclass(frozen=True, slots=True)
class Judgement:
    """A policy's answer to a reading."""

    state: ThermalState
    reason: str
    settings: Settings


class Policy(Protocol):
    """Decides for one card. Never raises, whatever the readings."""

    def decide(self, reading: Reading) -> Judgement:
        """What to do after this reading. Called for each, many times a second."""

    def blind(self, at_seconds: float) -> Judgement:
        """What to do while the card can't be read: cool it as at alert."""

    def adopt(self, authority: Authority, thresholds: Thresholds) -> None:
        """The card's means or thresholds have changed: go on with these."""


def cooler(one: Settings, other: Settings) -> Settings:
    """The cooler of two settings in each of their parts."""
    return Settings(
        power_limit_watts=_lower(one.power_limit_watts, other.power_limit_watts),
        sm_clock_mhz=_lower(one.sm_clock_mhz, other.sm_clock_mhz),
        memory_clock_mhz=_lower(one.memory_clock_mhz, other.memory_clock_mhz),
        batch_limit=_lower(one.batch_limit, other.batch_limit),
        dispatch_duty=min(one.dispatch_duty, other.dispatch_duty),
        paused=one.paused or other.paused,
        stop_requested=one.stop_requested or other.stop_requested,
    )


def _lower(one: Number | None, other: Number | None) -> Number | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
