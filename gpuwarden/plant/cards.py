# SPDX-License-Identifier: Apache-2.0
"""The cards that can be simulated: what each one is, what its driver allows, how it warms up.

Identity, limits and thresholds are those that the driver reports for the real card (nvidia-smi
dumps; the H200's are a survey of one card through NVML). Where the thermal figures come from is
said at each preset. Pure data: no I/O.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class Architecture(IntEnum):
    """NVML_DEVICE_ARCH_* of nvml.h."""

    TURING = 6
    AMPERE = 7
    HOPPER = 9


class Capability(IntFlag):
    """What a card's driver answers; a missing one is NOT_SUPPORTED. Mirrors state.h."""

    MEMORY_TEMPERATURE = 1 << 0
    POWER_AVERAGE = 1 << 1  # fields 185; PowerUsage is a 1 s mean (Ampere on, but not GA100)
    TEMPERATURE_LIMITS = 1 << 2  # margin and T.Limit offsets (Ada, Hopper on)
    MEMORY_LOCK = 1 << 3  # locked memory clocks (Ampere on)
    ECC = 1 << 4
    MIG = 1 << 5
    REMAPPED_ROWS = 1 << 6  # Ampere on, with ECC memory
    RETIRED_PAGES = 1 << 7  # before Ampere
    ACOUSTIC = 1 << 8  # acoustic temperature target (GeForce, RTX)
    FAN = 1 << 9
    SERIAL = 1 << 10


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """How the HBM warms: over the sink, from the die beside it, and by its own watts."""

    sink_ratio: float  # its part of the sink rises this many times as far as the die's
    die_coupling: float  # share of the die's rise above the sink that reaches it
    resistance: float  # C per W of card power, fast
    seconds: float  # time constant of the fast part
    offset_celsius: float = 0.0  # its own heat at any power


@dataclass(frozen=True, slots=True)
class ThermalNodes:
    """Resistances in C/W, time constants in seconds."""

    die_resistance: float
    die_seconds: float
    sink_resistance: float
    sink_seconds: float
    inlet_offset_celsius: float = 0.0  # how much warmer the card's own air is than the inlet
    memory: MemoryNode | None = None

    @property
    def total_resistance(self) -> float:
        """C/W from the inlet to the die."""
        return self.die_resistance + self.sink_resistance


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Watts at idle and at full load without any limit, both with the die at 60 C."""

    idle_watts: float
    full_load_watts: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Degrees Celsius as the driver reports them; None where it answers NOT_SUPPORTED."""

    maximum_operating: int
    slowdown: int
    shutdown: int
    memory_maximum: int | None = None
    acoustic: tuple[int, int, int] | None = None  # least, current, most


@dataclass(frozen=True, slots=True)
class Clocks:
    """Megahertz."""

    sm_minimum: int
    sm_maximum: int
    sm_step: int
    sm_idle: int
    memory: tuple[int, ...]  # supported, highest first
    memory_idle: int
    video_maximum: int

    @property
    def memory_maximum(self) -> int:
        """The highest supported memory clock."""
        return self.memory[0]


@dataclass(frozen=True, slots=True)
class CardModel:
    """One kind of card."""

    preset: str
    name: str
    architecture: Architecture
    compute_capability: tuple[int, int]
    pci_device_id: int
    pci_subsystem_id: int
    memory_bytes: int
    memory_reserved_bytes: int
    limit_minimum_watts: float
    limit_default_watts: float
    limit_maximum_watts: float
    thresholds: Thresholds
    clocks: Clocks
    power: PowerModel
    thermal: ThermalNodes
    capabilities: Capability
    idle_performance_state: int
    event_types: int


MIB = 1024 * 1024

# nvmlDeviceGetSupportedEventTypes of a surveyed H200 (driver 580); older cards: ECC, P-state,
# XID, clock, power source.
HOPPER_EVENTS = 65439
BASE_EVENTS = 0x9F
GEFORCE_EVENTS = 0x9C

DATA_CENTRE = (
    Capability.MEMORY_TEMPERATURE
    | Capability.MEMORY_LOCK
    | Capability.ECC
    | Capability.MIG
    | Capability.REMAPPED_ROWS
    | Capability.SERIAL
)

# The die's fast share is 0.034 C/W at 814 mm2 (measured on an H200), scaled by die area: GA100
# 826, GH100 814, GA104 392, GA102 628, TU104 545 mm2. The fully air-cooled T4 and 3090 keep 0.05
# and 0.045. Totals are those of the trials behind the thermal guard: T4 0.74, A4000 0.50,
# 3090 0.17 C/W with free inlet; A100 0.09, H100 0.10 in forced air.
T4 = CardModel(
    preset="T4",
    name="Tesla T4",
    architecture=Architecture.TURING,
    compute_capability=(7, 5),
    pci_device_id=0x1EB810DE,
    pci_subsystem_id=0x12A210DE,
    memory_bytes=15360 * MIB,
    memory_reserved_bytes=448 * MIB,
    limit_minimum_watts=60,
    limit_default_watts=70,
    limit_maximum_watts=70,
    thresholds=Thresholds(maximum_operating=85, slowdown=93, shutdown=96),
    clocks=Clocks(300, 1590, 15, 300, (5001, 405), 405, 1470),
    power=PowerModel(idle_watts=10, full_load_watts=70),
    thermal=ThermalNodes(0.05, 0.4, 0.69, 93),
    capabilities=Capability.ECC | Capability.RETIRED_PAGES | Capability.SERIAL,
    idle_performance_state=8,
    event_types=BASE_EVENTS,
)

A4000 = CardModel(
    preset="A4000",
    name="NVIDIA RTX A4000",
    architecture=Architecture.AMPERE,
    compute_capability=(8, 6),
    pci_device_id=0x24B010DE,
    pci_subsystem_id=0x14AD10DE,
    memory_bytes=16376 * MIB,
    memory_reserved_bytes=258 * MIB,
    limit_minimum_watts=100,
    limit_default_watts=140,
    limit_maximum_watts=140,
    thresholds=Thresholds(93, 95, 98, acoustic=(65, 84, 91)),
    clocks=Clocks(210, 2100, 15, 210, (7001, 6501, 810, 405), 405, 1950),
    power=PowerModel(idle_watts=15, full_load_watts=140),
    thermal=ThermalNodes(0.071, 0.4, 0.429, 109),
    capabilities=Capability.POWER_AVERAGE
    | Capability.MEMORY_LOCK
    | Capability.ECC
    | Capability.REMAPPED_ROWS
    | Capability.ACOUSTIC
    | Capability.FAN
    | Capability.SERIAL,
    idle_performance_state=8,
    event_types=BASE_EVENTS,
)

RTX_3090 = CardModel(
    preset="3090",
    name="NVIDIA GeForce RTX 3090",
    architecture=Architecture.AMPERE,
    compute_capability=(8, 6),
    pci_device_id=0x220410DE,
    pci_subsystem_id=0x147D10DE,
    memory_bytes=24576 * MIB,
    memory_reserved_bytes=309 * MIB,
    limit_minimum_watts=100,
    limit_default_watts=350,
    limit_maximum_watts=350,
    thresholds=Thresholds(93, 95, 98, acoustic=(65, 83, 91)),
    clocks=Clocks(210, 2100, 15, 210, (9751, 9501, 5001, 810, 405), 405, 1950),
    power=PowerModel(idle_watts=25, full_load_watts=350),
    thermal=ThermalNodes(0.045, 0.4, 0.125, 61),
    capabilities=Capability.POWER_AVERAGE
    | Capability.MEMORY_LOCK
    | Capability.ACOUSTIC
    | Capability.FAN,
    idle_performance_state=8,
    event_types=GEFORCE_EVENTS,
)

# The server's own heat warms the air before it reaches the cards by 8 C: with the totals above an
# A100 then idles at 38 C and settles at 59 C under full load with a 24 C cold aisle.
SERVER_INLET_OFFSET_CELSIUS = 8.0

A100 = CardModel(
    preset="A100",
    name="NVIDIA A100 80GB PCIe",
    architecture=Architecture.AMPERE,
    compute_capability=(8, 0),
    pci_device_id=0x20B510DE,
    pci_subsystem_id=0x153310DE,
    memory_bytes=81920 * MIB,
    memory_reserved_bytes=603 * MIB,
    limit_minimum_watts=150,
    limit_default_watts=300,
    limit_maximum_watts=300,
    thresholds=Thresholds(85, 89, 92, memory_maximum=95),
    clocks=Clocks(210, 1410, 15, 210, (1512,), 1512, 1290),
    power=PowerModel(idle_watts=65, full_load_watts=300),
    thermal=ThermalNodes(
        0.0335,
        0.34,
        0.0565,
        40,
        SERVER_INLET_OFFSET_CELSIUS,
        MemoryNode(sink_ratio=1.3, die_coupling=0.24, resistance=0.0435, seconds=1.0),
    ),
    capabilities=DATA_CENTRE,
    idle_performance_state=0,
    event_types=BASE_EVENTS,
)

H100 = CardModel(
    preset="H100",
    name="NVIDIA H100 PCIe",
    architecture=Architecture.HOPPER,
    compute_capability=(9, 0),
    pci_device_id=0x233110DE,
    pci_subsystem_id=0x162610DE,
    memory_bytes=81559 * MIB,
    memory_reserved_bytes=551 * MIB,
    limit_minimum_watts=200,
    limit_default_watts=350,
    limit_maximum_watts=350,
    thresholds=Thresholds(87, 89, 95, memory_maximum=95),
    clocks=Clocks(210, 1755, 15, 345, (1593,), 1593, 1545),
    power=PowerModel(idle_watts=48, full_load_watts=350),
    thermal=ThermalNodes(
        0.034,
        0.34,
        0.066,
        40,
        SERVER_INLET_OFFSET_CELSIUS,
        MemoryNode(sink_ratio=1.2, die_coupling=0.24, resistance=0.0225, seconds=1.0),
    ),
    capabilities=DATA_CENTRE | Capability.POWER_AVERAGE | Capability.TEMPERATURE_LIMITS,
    idle_performance_state=0,
    event_types=HOPPER_EVENTS,
)

# Fitted to a recorded load step of one H200 (122 W to 692 W for 150 s, 5 Hz). An uncapped full
# matrix product would draw 930 W: at half duty the card averaged 527 W between 125 W pauses.
H200 = CardModel(
    preset="H200",
    name="NVIDIA H200",
    architecture=Architecture.HOPPER,
    compute_capability=(9, 0),
    pci_device_id=590680286,
    pci_subsystem_id=415174878,
    memory_bytes=150754820096,
    memory_reserved_bytes=644939776,
    limit_minimum_watts=200,
    limit_default_watts=700,
    limit_maximum_watts=700,
    thresholds=Thresholds(87, 89, 95, memory_maximum=95),
    clocks=Clocks(345, 1980, 15, 1980, (3201, 2201), 3201, 1545),
    power=PowerModel(idle_watts=130, full_load_watts=930),
    thermal=ThermalNodes(
        0.0338,
        0.34,
        0.00637,
        25,
        13.24,  # 37.24 C with nothing drawn, of which 24 C are taken to be the inlet
        MemoryNode(
            sink_ratio=2.29, die_coupling=0.24, resistance=0.006, seconds=1.0, offset_celsius=1.55
        ),
    ),
    capabilities=DATA_CENTRE | Capability.POWER_AVERAGE | Capability.TEMPERATURE_LIMITS,
    idle_performance_state=0,
    event_types=HOPPER_EVENTS,
)

PRESETS: dict[str, CardModel] = {
    card.preset: card for card in (T4, A4000, RTX_3090, A100, H100, H200)
}
