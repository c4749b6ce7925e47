"""At which temperatures a card is hot, from what the card itself says. Pure.

Fixed numbers are wrong on some cards: a T4 slows itself at 85 C by design, an MX330 tops out at
57 C. So the articles' 78 and 85 C are the most, and the card's own maximum lowers them.
"""

from dataclasses import dataclass

from gpuwarden.nvml.limits import CardLimits

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


def thresholds_of(limits: CardLimits) -> Thresholds:
    """The thresholds for a card with these limits."""
    notes: list[str] = []
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
    alert = min(ALERT_CELSIUS, critical - ALERT_BELOW_MAXIMUM_CELSIUS)
    memory = limits.memory_maximum_celsius
    if memory is None:
        notes.append("the card names no limit for its memory's temperature")
    return Thresholds(
        alert_celsius=alert,
        critical_celsius=critical,
        safe_celsius=alert - SAFE_BELOW_ALERT_CELSIUS,
        memory_alert_celsius=None if memory is None else memory - ALERT_BELOW_MAXIMUM_CELSIUS,
        memory_critical_celsius=memory,
        notes=tuple(notes),
    )


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
