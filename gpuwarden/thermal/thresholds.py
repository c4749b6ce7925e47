# SPDX-License-Identifier: Apache-2.0
"""At which temperatures a card is hot: what was configured, else what the card itself says. Pure.

Fixed numbers are wrong on some cards: a T4 slows itself at 85 C by design, an MX330 tops out at
57 C. So the articles' 78 and 85 C are the most, and the card's own maximum lowers them.
"""

from dataclasses import dataclass

from gpuwarden.config.thermal import CardWishes
from gpuwarden.nvml.limits import CardLimits

NO_WISHES = CardWishes()

ALERT_CELSIUS = 78.0  # the articles' figures, for a card that allows them
CRITICAL_CELSIUS = 85.0
ALERT_BELOW_MAXIMUM_CELSIUS = 7.0
SAFE_BELOW_ALERT_CELSIUS = 6.0
SHUTDOWN_RESERVE_CELSIUS = 5.0  # less than this between critical and shutdown is no guard
# A card that names no maximum operating temperature slows itself 2 to 8 C above it (H100 2, A100 4,
# T4 8): take the middle of what was seen.
MAXIMUM_BELOW_SLOWDOWN_CELSIUS = 4.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Alert, critical and safe, for the die and for the memory where the card names its maximum.

    :ivar notes: what the card didn't say and what was taken instead.
    """

    alert_celsius: float
    critical_celsius: float
    safe_celsius: float
    memory_alert_celsius: float | None
    memory_critical_celsius: float | None
    notes: tuple[str, ...] = ()


class ThresholdsError(ValueError):
    """The configured thresholds don't suit this card; the text names them and its own figures."""


@dataclass(frozen=True, slots=True)
class _Figure:
    """A threshold and whether it was wished for."""

    key: str
    celsius: float
    wished: bool

    def __str__(self) -> str:
        return f"{self.key} {self.celsius:g}{'' if self.wished else ' (from the card)'}"


def thresholds_of(limits: CardLimits, wishes: CardWishes = NO_WISHES) -> Thresholds:
    """The thresholds for a card with these limits: those wished for, else the card's own.

    Without wishes every card has some. A wish never moves a threshold that wasn't wished for, but
    that safe follows alert.

    :raises ThresholdsError: safe < alert < critical doesn't hold, or critical is above what the
        card leaves room for.
    """
    notes: list[str] = []
    own_critical = _own_critical(limits, notes)
    own_alert = min(ALERT_CELSIUS, own_critical - ALERT_BELOW_MAXIMUM_CELSIUS)
    alert = wishes.alert_celsius or own_alert
    critical = wishes.critical_celsius or own_critical
    safe = wishes.safe_celsius or alert - SAFE_BELOW_ALERT_CELSIUS
    _check(
        _Figure("safe_celsius", safe, bool(wishes.safe_celsius)),
        _Figure("alert_celsius", alert, bool(wishes.alert_celsius)),
        _Figure("critical_celsius", critical, bool(wishes.critical_celsius)),
        limits,
    )
    memory = limits.memory_maximum_celsius
    if memory is None:
        notes.append("the card names no limit for its memory's temperature")
    return Thresholds(
        alert_celsius=alert,
        critical_celsius=critical,
        safe_celsius=safe,
        memory_alert_celsius=None if memory is None else memory - ALERT_BELOW_MAXIMUM_CELSIUS,
        memory_critical_celsius=memory,
        notes=tuple(notes),
    )


def _own_critical(limits: CardLimits, notes: list[str]) -> float:
    maximum = _maximum_operating(limits, notes)
    critical = CRITICAL_CELSIUS if maximum is None else min(CRITICAL_CELSIUS, maximum)
    if limits.shutdown_celsius is not None:
        ceiling = limits.shutdown_celsius - SHUTDOWN_RESERVE_CELSIUS
        if critical > ceiling:
            notes.append(
                f"the card shuts down at {limits.shutdown_celsius:.0f} C: "
                f"critical is {ceiling:.0f} C instead of {critical:.0f} C"
            )
            critical = ceiling
    return critical


def _check(safe: _Figure, alert: _Figure, critical: _Figure, limits: CardLimits) -> None:
    """Raises ThresholdsError with everything that is wrong."""
    faults = [
        f"{low} is not below {high}"
        for low, high in ((alert, critical), (safe, alert))
        if low.celsius >= high.celsius
    ]
    ceiling, why = _ceiling(limits)
    if critical.celsius > ceiling:
        faults.append(f"{critical} is above {ceiling:g}, {why}")
    if faults:
        raise ThresholdsError(f"{'; '.join(faults)}; the card says: {_said(limits)}")


def _ceiling(limits: CardLimits) -> tuple[float, str]:
    """The highest critical threshold, and why it is that."""
    if limits.shutdown_celsius is not None:
        reserve = f"{SHUTDOWN_RESERVE_CELSIUS:g} C below the card's shutdown"
        return limits.shutdown_celsius - SHUTDOWN_RESERVE_CELSIUS, reserve
    # Without its shutdown: every card seen has that at least 3 C above its slowdown. What a card
    # names none of is not guessed higher than where every other is critical.
    if limits.slowdown_celsius is not None:
        return max(limits.slowdown_celsius, _own_critical(limits, [])), "the card's slowdown"
    if limits.maximum_operating_celsius is not None:
        return limits.maximum_operating_celsius, "the card's maximum operating temperature"
    return CRITICAL_CELSIUS, "the most for a card that names no limit"


def _said(limits: CardLimits) -> str:
    """The card's own figures in words."""
    figures = (
        ("maximum operating", limits.maximum_operating_celsius),
        ("slowdown", limits.slowdown_celsius),
        ("shutdown", limits.shutdown_celsius),
    )
    known = [f"{name} {celsius:g} C" for name, celsius in figures if celsius is not None]
    return ", ".join(known) or "no temperature limit"


def _maximum_operating(limits: CardLimits, notes: list[str]) -> float | None:
    if limits.maximum_operating_celsius is not None:
        return limits.maximum_operating_celsius
    if limits.slowdown_celsius is not None:
        notes.append(
            "the card names no maximum operating temperature: taken as "
            f"{MAXIMUM_BELOW_SLOWDOWN_CELSIUS:.0f} C below its slowdown"
        )
        return limits.slowdown_celsius - MAXIMUM_BELOW_SLOWDOWN_CELSIUS
    notes.append("the card names no temperature limit: 78 and 85 C are taken")
    return None
