# SPDX-License-Identifier: Apache-2.0
"""What one attempt to read the card brought, and what of it a policy is told. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from gpuwarden.nvml.card import Condition, Sample
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.nvml.vocabulary import PowerKind
from gpuwarden.thermal.decision import Reading

# Nothing below or above can be a running card's die: a sensor that says so lies.
PLAUSIBLE_CELSIUS = (1.0, 130.0)


class Trouble(StrEnum):
    """Why an attempt brought no sample."""

    NO_PLAN = "no plan"
    NO_DRIVER = "no driver"
    LOST = "lost"
    SENSOR = "sensor"


@dataclass(frozen=True, slots=True)
class CardName:
    """Who the guarded card is, as the plan or the card itself says."""

    uuid: str = ""
    name: str = ""
    pci_address: str = ""
    numa_node: int = -1


@dataclass(frozen=True, slots=True)
class Seen:
    """The card answered.

    :ivar hotter_celsius: what the die has by the card's margin to its own limit, where that is
        hotter than its sensor says; None where they agree.
    :ivar slowed_by_hardware: the card halves its clocks because it is too hot.
    """

    card: CardName
    sample: Sample
    condition: Condition
    limits: CardLimits
    hotter_celsius: float | None = None
    slowed_by_hardware: bool = False


@dataclass(frozen=True, slots=True)
class NotSeen:
    """It didn't, and why."""

    card: CardName
    trouble: Trouble
    text: str


Observation = Seen | NotSeen


def reading_of(seen: Seen, at_seconds: float) -> Reading:
    """What a policy is told: of two readings of the die the hotter one.

    :raises ValueError: the sample has no temperature, and then it is no :class:`Seen`.
    """
    sample = seen.sample
    if sample.temperature_celsius is None:
        raise ValueError("a card without a temperature was not seen")
    return Reading(
        at_seconds=at_seconds,
        die_celsius=max(sample.temperature_celsius, seen.hotter_celsius or 0.0),
        memory_celsius=sample.memory_temperature_celsius,
        power_watts=sample.power_watts,
        power_averaged=sample.power_kind is PowerKind.AVERAGE,
        sm_clock_mhz=sample.sm_clock_mhz,
        slowed_by_hardware=seen.slowed_by_hardware,
    )


def slows_for_heat(before: tuple[str, ...], now: tuple[str, ...]) -> bool:
    """Whether the hardware slows the card for its heat, by the reasons of two samples.

    The bit for heat stands alone. The general one is set for a moment with each change of
    performance state and for a power brake as well: it counts if both samples have it and no brake.
    """
    if "hardware-thermal-slowdown" in now:
        return True
    general = "hardware-slowdown"
    return general in now and general in before and "hardware-power-brake" not in now


def implausible(temperature_celsius: float | None) -> str:
    """Why this is no reading of a die's temperature; empty where it is one."""
    if temperature_celsius is None:
        return "the card has no temperature sensor that the driver shows"
    low, high = PLAUSIBLE_CELSIUS
    if not low <= temperature_celsius <= high:
        return f"the sensor reads {temperature_celsius:.0f} C, which can't be"
    return ""
