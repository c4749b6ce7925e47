# SPDX-License-Identifier: Apache-2.0
"""What a card may bear: its thresholds from two sources that must agree. Pure.

Drivers name thresholds in degrees, or (from Ada on, where the former are to be removed) as
offsets on the T.Limit scale, which counts the degrees left: an H100 at 34 C with 53 C left and
offsets 0, -2 and -8 has its thresholds at 87, 89 and 95 C.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpuwarden.nvml.vocabulary import Threshold

# Nothing that a card says outside of this can be one of its thresholds: the lowest seen is 57 C
# (MX330), the highest 110 C.
PLAUSIBLE_CELSIUS = (45.0, 130.0)
AGREEMENT_CELSIUS = 3.0  # whole-degree readings of two moments, and one more


@dataclass(frozen=True, slots=True)
class CardLimits:
    """A card's own thresholds and power range; None where it doesn't say.

    :ivar notes: what was doubted, for the journal.
    """

    maximum_operating_celsius: float | None = None
    slowdown_celsius: float | None = None
    shutdown_celsius: float | None = None
    memory_maximum_celsius: float | None = None
    power_minimum_watts: float | None = None
    power_maximum_watts: float | None = None
    power_default_watts: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Offsets:
    """The T.Limit scale: a temperature, what was left of it then, and the thresholds on it."""

    temperature_celsius: float | None
    margin_celsius: float | None
    maximum_operating_celsius: float | None
    slowdown_celsius: float | None
    shutdown_celsius: float | None

    def absolute(self, offset_celsius: float | None) -> float | None:
        """The threshold in degrees; None where the scale is unknown or gives nonsense."""
        if self.temperature_celsius is None or self.margin_celsius is None:
            return None
        if offset_celsius is None:
            return None
        return plausible(self.temperature_celsius + self.margin_celsius - offset_celsius)


def combine(
    thresholds: Mapping[Threshold, float | None],
    offsets: Offsets,
    *,
    power_minimum_watts: float | None,
    power_maximum_watts: float | None,
    power_default_watts: float | None,
) -> CardLimits:
    """One set of limits: the named thresholds, or those from the offsets; the lower if in doubt.

    The memory's offset is left aside: its scale has no reading of its own.
    """
    notes: list[str] = []

    def chosen(kind: Threshold, offset_celsius: float | None) -> float | None:
        named = plausible(thresholds.get(kind))
        scaled = offsets.absolute(offset_celsius)
        if named is None or scaled is None:
            return scaled if named is None else named
        if abs(named - scaled) > AGREEMENT_CELSIUS:
            word = kind.name.lower().replace("_", " ")
            notes.append(
                f"{word} threshold is {named:.0f} C by name, {scaled:.0f} C by T.Limit: "
                "the lower holds"
            )
            return min(named, scaled)
        return named

    return CardLimits(
        maximum_operating_celsius=chosen(
            Threshold.MAXIMUM_OPERATING, offsets.maximum_operating_celsius
        ),
        slowdown_celsius=chosen(Threshold.SLOWDOWN, offsets.slowdown_celsius),
        shutdown_celsius=chosen(Threshold.SHUTDOWN, offsets.shutdown_celsius),
        memory_maximum_celsius=plausible(thresholds.get(Threshold.MEMORY_MAXIMUM)),
        power_minimum_watts=power_minimum_watts,
        power_maximum_watts=power_maximum_watts,
        power_default_watts=power_default_watts,
        notes=tuple(notes),
    )


def plausible(celsius: float | None) -> float | None:
    """``celsius`` if it can be a card's threshold, else None."""
    if celsius is None or not PLAUSIBLE_CELSIUS[0] <= celsius <= PLAUSIBLE_CELSIUS[1]:
        return None
    return celsius
