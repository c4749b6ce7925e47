# SPDX-License-Identifier: Apache-2.0
"""org.gpuwarden1.Gpu: one card as its thermal guard last sampled it."""

from gpuwarden.bus.interface import Emits, Interface, Property
from gpuwarden.control.states import ThermalData
from gpuwarden.names import BUS_NAME

GPU: Interface[ThermalData] = Interface(
    f"{BUS_NAME}.Gpu",
    "One card as last sampled. Its index is fixed for the boot; a card that fell off the bus "
    "keeps it.",
    properties=(
        Property("Index", "u", Emits.CONST, lambda card: card.index, "Its index."),
        Property("Uuid", "s", Emits.TRUE, lambda card: card.uuid, "Its UUID, as the driver says."),
        Property("Name", "s", Emits.TRUE, lambda card: card.name, "Its product name."),
        Property(
            "PciAddress",
            "s",
            Emits.TRUE,
            lambda card: card.pci_address,
            "Its PCI address, as in lspci -D.",
        ),
        Property(
            "NumaNode",
            "i",
            Emits.TRUE,
            lambda card: card.numa_node,
            "NUMA node it is attached to; -1: unknown.",
        ),
        Property(
            "TemperatureCelsius",
            "d",
            Emits.FALSE,
            lambda card: card.temperature_celsius,
            "Temperature of the die; NaN: unknown.",
        ),
        Property(
            "MemoryTemperatureCelsius",
            "d",
            Emits.FALSE,
            lambda card: card.memory_temperature_celsius,
            "Temperature of its memory; NaN: unknown or no sensor.",
        ),
        Property(
            "PowerWatts",
            "d",
            Emits.FALSE,
            lambda card: card.power_watts,
            "Power drawn; NaN: unknown.",
        ),
        Property(
            "PowerLimitWatts",
            "d",
            Emits.FALSE,
            lambda card: card.power_limit_watts,
            "Power limit in force; NaN: unknown.",
        ),
        Property(
            "Utilization",
            "d",
            Emits.FALSE,
            lambda card: card.utilization,
            "Share of the time in which some kernel ran, 0 to 1, as the driver says; NaN: unknown. "
            "Says nothing about how much was done.",
        ),
        Property(
            "VramUsedBytes",
            "t",
            Emits.FALSE,
            lambda card: card.vram_used_bytes,
            "Card memory in use; 0: unknown.",
        ),
        Property(
            "VramTotalBytes",
            "t",
            Emits.TRUE,
            lambda card: card.vram_total_bytes,
            "Card memory there is; 0: unknown.",
        ),
        Property(
            "ClockEventReasons",
            "as",
            # Under a power limit they flicker with each sample; what a listener acts on is
            # Thermal.State.
            Emits.FALSE,
            lambda card: card.clock_event_reasons,
            "Why the clocks are lower than they could be, as the driver says.",
        ),
        Property(
            "RecoveryAction",
            "s",
            Emits.TRUE,
            lambda card: card.recovery_action,
            "What the driver wants done to get the card back: none, or for example a reset.",
        ),
    ),
)
