"""What one attempt to read the card brought. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from gpuwarden.nvml.card import Condition, Sample
from gpuwarden.nvml.limits import CardLimits

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
    """The card answered."""

    card: CardName
    sample: Sample
    condition: Condition
    limits: CardLimits


@dataclass(frozen=True, slots=True)
class NotSeen:
    """It didn't, and why."""

    card: CardName
    trouble: Trouble
    text: str


Observation = Seen | NotSeen


def implausible(temperature_celsius: float | None) -> str:
    """Why this is no reading of a die's temperature; empty where it is one."""
    if temperature_celsius is None:
        return "the card has no temperature sensor that the driver shows"
    low, high = PLAUSIBLE_CELSIUS
    if not low <= temperature_celsius <= high:
        return f"the sensor reads {temperature_celsius:.0f} C, which can't be"
    return ""
