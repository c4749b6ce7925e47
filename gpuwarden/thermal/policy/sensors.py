# SPDX-License-Identifier: Apache-2.0
"""The die's and the memory's sensor, each against its own thresholds. Pure."""

from dataclasses import dataclass

from gpuwarden.thermal.decision import Reading
from gpuwarden.thermal.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class Limits:
    """One sensor's thresholds, in Celsius."""

    name: str
    alert: float
    critical: float
    safe: float


def limits_of(thresholds: Thresholds) -> tuple[Limits, ...]:
    """The die's, and the memory's where the card names its maximum."""
    die = Limits(
        "die", thresholds.alert_celsius, thresholds.critical_celsius, thresholds.safe_celsius
    )
    alert, critical = thresholds.memory_alert_celsius, thresholds.memory_critical_celsius
    if alert is None or critical is None:
        return (die,)
    band = thresholds.alert_celsius - thresholds.safe_celsius
    return (die, Limits("memory", alert, critical, alert - band))


def read_by(limits: Limits, reading: Reading) -> float | None:
    """What this sensor reads; None where it says nothing."""
    return reading.die_celsius if limits.name == "die" else reading.memory_celsius


def hottest(limits: tuple[Limits, ...], reading: Reading) -> tuple[Limits, float]:
    """The sensor with the smallest headroom to its alert, and what it reads."""
    pairs = [(each, read_by(each, reading)) for each in limits]
    known = [(each, value) for each, value in pairs if value is not None]
    return min(known, key=lambda pair: pair[0].alert - pair[1])


def any_at(limits: tuple[Limits, ...], reading: Reading, threshold: str) -> bool:
    """Whether a sensor reads its ``threshold`` (``alert``, ``critical``) or more."""
    return any(
        value >= getattr(each, threshold)
        for each in limits
        if (value := read_by(each, reading)) is not None
    )


def all_below(limits: tuple[Limits, ...], reading: Reading, alert_less_celsius: float) -> bool:
    """Whether every sensor reads its alert less so many degrees, or less."""
    return all(
        value <= each.alert - alert_less_celsius
        for each in limits
        if (value := read_by(each, reading)) is not None
    )


def all_safe(limits: tuple[Limits, ...], reading: Reading) -> bool:
    """Whether every sensor reads safe or less."""
    return all(
        value <= each.safe for each in limits if (value := read_by(each, reading)) is not None
    )
