# SPDX-License-Identifier: Apache-2.0
"""NVML's numbers as the words that the bus, the CLI and the journal show. Pure."""

from enum import IntEnum, StrEnum
from typing import Final

# nvml.h, nvmlClocksEventReason*: why the clocks are below their maximum.
_CLOCK_EVENT_REASONS: Final[dict[int, str]] = {
    0x001: "idle",
    0x002: "applications-clocks",
    0x004: "software-power-cap",
    0x008: "hardware-slowdown",
    0x010: "sync-boost",
    0x020: "software-thermal-slowdown",
    0x040: "hardware-thermal-slowdown",
    0x080: "hardware-power-brake",
    0x100: "display-clocks",
    0x200: "board-limit",
    0x400: "reliability",
}

# nvml.h, NVML_GPU_RECOVERY_ACTION_*: what the driver says must be done to the card.
RECOVERY_ACTIONS: Final = (
    "none",
    "gpu-reset",
    "node-reboot",
    "drain-p2p",
    "drain-and-reset",
    "recover-imex-domain",
    "bus-reset",
    "system-reboot",
)
UNKNOWN: Final = "unknown"


class Field(IntEnum):
    """The field ids that we read (nvml.h, NVML_FI_DEV_*)."""

    SOFTWARE_POWER_CAP_NANOSECONDS = 74
    MEMORY_TEMPERATURE = 82
    POWER_INSTANTANEOUS_MILLIWATTS = 186
    POWER_LIMIT_REQUESTED_MILLIWATTS = 192
    SHUTDOWN_OFFSET = 193
    SLOWDOWN_OFFSET = 194
    MEMORY_MAXIMUM_OFFSET = 195
    MAXIMUM_OPERATING_OFFSET = 196
    RECOVERY_ACTION = 230
    SOFTWARE_THERMAL_NANOSECONDS = 269
    HARDWARE_THERMAL_NANOSECONDS = 270
    HARDWARE_POWER_BRAKE_NANOSECONDS = 271


class Threshold(IntEnum):
    """Kinds of temperature threshold (nvml.h, nvmlTemperatureThresholds_t)."""

    SHUTDOWN = 0
    SLOWDOWN = 1
    MEMORY_MAXIMUM = 2
    MAXIMUM_OPERATING = 3


class Violation(IntEnum):
    """What older drivers count the time of (nvml.h, nvmlPerfPolicyType_t)."""

    POWER = 0
    THERMAL = 1


class Clock(IntEnum):
    """Kinds of clock (nvml.h, nvmlClockType_t)."""

    SM = 1
    MEMORY = 2


class Architecture(IntEnum):
    """Generations of cards (nvml.h, NVML_DEVICE_ARCH_*); later ones have higher numbers."""

    VOLTA = 5
    TURING = 6
    AMPERE = 7


class PowerKind(StrEnum):
    """What a power reading is."""

    INSTANTANEOUS = "instantaneous"
    AVERAGE = "average of 1 s"
    UNKNOWN = "unknown"


def clock_event_reasons(bits: int) -> tuple[str, ...]:
    """The names of the set bits, lowest first; a bit that we don't know keeps its number."""
    return tuple(
        _CLOCK_EVENT_REASONS.get(1 << position, f"bit-{position}")
        for position in range(bits.bit_length())
        if bits >> position & 1
    )


def recovery_action(value: int | None) -> str:
    """The word for field 230; ``unknown`` where the driver doesn't say."""
    if value is None or not 0 <= value < len(RECOVERY_ACTIONS):
        return UNKNOWN
    return RECOVERY_ACTIONS[value]


def kernel_pci_address(nvml_bus_id: str) -> str:
    """NVML's ``00000000:3B:00.0`` in the kernel's form, ``0000:3b:00.0``.

    :raises ValueError: not a PCI address.
    """
    try:
        domain, bus, rest = nvml_bus_id.split(":")
        device, function = rest.split(".")
        numbers = (int(domain, 16), int(bus, 16), int(device, 16), int(function, 16))
    except ValueError:
        raise ValueError(
            f"{nvml_bus_id!r} is no PCI address, expected something like 00000000:3B:00.0"
        ) from None
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)
