# SPDX-License-Identifier: Apache-2.0
"""One simulated card: its plant, who uses it, what is broken. Writes its part of the state file."""

from dataclasses import dataclass, replace
from enum import IntFlag

from gpuwarden.plant.cards import Capability
from gpuwarden.plant.physics import Environment, Plant, Settings
from gpuwarden.simulator import layout
from gpuwarden.simulator.configuration import CardEntry
from gpuwarden.simulator.messages import ContextKind
from gpuwarden.simulator.state_file import StateFile, milli, reset_settings, unix_microseconds

XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError
SETTLED_CELSIUS = 0.02
# NVML_FI_DEV_GET_GPU_RECOVERY_ACTION after an XID, by NVIDIA's catalogue of XIDs.
RECOVERY_RESET, RECOVERY_REBOOT = 1, 2
XID_RECOVERY = dict.fromkeys((46, 62, 64, 95, 109, 119, 120, 140, 143), RECOVERY_RESET) | {
    79: RECOVERY_REBOOT
}


class Fault(IntFlag):
    """What can be broken; mirrors SIM_FAULT_* of state.h."""

    LOST = 1 << 0
    SENSOR_ERROR = 1 << 1
    HANG = 1 << 2
    NO_PERMISSION = 1 << 3
    NO_MEMORY_LOCK = 1 << 4
    NO_POWER_LIMIT = 1 << 5
    NO_PROCESS_LIST = 1 << 6
    NO_PROCESS_MEMORY = 1 << 7

    @property
    def command(self) -> str:
        """Its name on the command line."""
        return (self.name or "").lower().replace("_", "-")


class Kind(IntFlag):
    """The lists that a process is in; mirrors SIM_COMPUTE and its like of state.h."""

    UNLISTED = 0
    COMPUTE = 1 << 0
    GRAPHICS = 1 << 1
    MPS = 1 << 2


# NVML has an MPS client in the list of compute processes as well (seen on an H100).
KINDS: dict[ContextKind, Kind] = {
    "compute": Kind.COMPUTE,
    "graphics": Kind.GRAPHICS,
    "mps": Kind.MPS | Kind.COMPUTE,
    "unlisted": Kind.UNLISTED,
}


@dataclass(slots=True, eq=False)
class Context:
    """What one attached connection holds on a card."""

    pid: int
    vram_bytes: int
    load: float
    kind: ContextKind = "compute"


class RefusedError(Exception):
    """The card does not do what was asked; the text says why."""


class Machine:
    """One card of the node."""

    def __init__(self, index: int, entry: CardEntry, file: StateFile) -> None:
        self.index = index
        self.entry = entry
        self.contexts: list[Context] = []
        self.world = Environment()
        self.base_load = 0.0
        self.recovery_action = 0
        self._file = file
        self.card: layout.Card = file.state.cards[index]
        self.plant = Plant(entry.model, self.environment())
        if file.adopted:
            self._take_over()

    @property
    def uuid(self) -> str:
        """The card's UUID."""
        return self.entry.effective_uuid

    @property
    def faults(self) -> Fault:
        """What is broken now."""
        return Fault(self.card.control.faults)

    @property
    def load(self) -> float:
        """What all users and the operator's own load ask of the card, 0 to 1."""
        return min(1.0, self.base_load + sum(context.load for context in self.contexts))

    @property
    def vram_used_bytes(self) -> int:
        """What contexts hold and what the driver keeps for itself."""
        held = sum(context.vram_bytes for context in self.contexts)
        return held + self.entry.model.memory_reserved_bytes

    def environment(self) -> Environment:
        """The world as the plant sees it."""
        return replace(self.world, load=self.load, context_open=bool(self.contexts))

    def settings(self) -> Settings:
        """What the driver was asked for, by whichever process."""
        control = self.card.control
        return Settings(
            power_limit_watts=control.requested_limit_mw / 1000,
            sm_lock_mhz=unpack_lock(control.sm_lock),
            memory_lock_mhz=unpack_lock(control.memory_lock),
        )

    def step(self, seconds: float) -> None:
        """Let time pass and publish what the sensors say."""
        self.plant.step(seconds, self.environment(), self.settings())
        if self.plant.shut_down and Fault.LOST not in self.faults:
            self.add_fault(Fault.LOST)
        self.publish()

    def is_settled(self) -> bool:
        """Whether nothing moves: no load, and the sink as warm as its air makes it."""
        if self.load > 0 or abs(self.plant.instant_watts - self.plant.watts) > 1:
            return False
        nodes, factor = self.entry.model.thermal, self.world.resistance_factor
        air = self.world.ambient_celsius + nodes.inlet_offset_celsius
        target = air + nodes.sink_resistance * factor * self.plant.watts
        return abs(self.plant.sink_celsius - target) < SETTLED_CELSIUS

    def attach(
        self, pid: int, vram_bytes: int, load: float, kind: ContextKind = "compute"
    ) -> Context:
        """Open a context.

        :raises RefusedError: the card is lost, full, or has too many users.
        """
        if Fault.LOST in self.faults:
            raise RefusedError(f"{self.uuid} is lost")
        if len(self.contexts) >= layout.MAX_PROCESSES:
            raise RefusedError(f"{self.uuid} has {layout.MAX_PROCESSES} contexts, and no more")
        self._check_room(vram_bytes, 0)
        context = Context(pid, vram_bytes, load, kind)
        self.contexts.append(context)
        return context

    def change(self, context: Context, vram_bytes: int | None, load: float | None) -> None:
        """Let a context hold or do more or less.

        :raises RefusedError: the card has not that much memory left.
        """
        if vram_bytes is not None:
            self._check_room(vram_bytes, context.vram_bytes)
            context.vram_bytes = vram_bytes
        if load is not None:
            context.load = load

    def detach(self, context: Context) -> None:
        """Close a context; one that was dropped with its card is gone already."""
        if context in self.contexts:
            self.contexts.remove(context)

    def add_fault(self, fault: Fault) -> None:
        """Break something. A lost card loses its contexts, its settings and every handle."""
        if fault is Fault.LOST:
            self.contexts.clear()
        self.card.control.faults |= int(fault)

    def clear(self) -> None:
        """Mend everything and take the operator's load and weather away; settings stay."""
        was_lost = Fault.LOST in self.faults
        self.world = Environment()
        self.base_load = 0.0
        self.recovery_action = 0
        if was_lost:
            self.reload()
        self.card.control.faults = 0

    def reload(self) -> None:
        """Attach the card anew, as a loaded driver does: default settings, no old handle works."""
        self.contexts.clear()
        reset_settings(self.card)
        self.card.control.attachment += 1
        self.plant.reattach(self.environment())

    def set_external_limit(self, watts: float) -> None:
        """Let somebody else set the power limit, as `nvidia-smi -pl` would.

        :raises RefusedError: the card has no such limit.
        """
        model = self.entry.model
        if not model.limit_minimum_watts <= watts <= model.limit_maximum_watts:
            raise RefusedError(
                f"external-limit must be {model.limit_minimum_watts:g} to "
                f"{model.limit_maximum_watts:g} W on a {model.preset} (found {watts:g})"
            )
        self.card.control.requested_limit_mw = milli(watts)

    def raise_xid(self, xid: int) -> None:
        """Report an XID to every event set that asked for it."""
        self.recovery_action = XID_RECOVERY.get(xid, self.recovery_action)
        self._file.add_event(self.index, XID_EVENT, xid)

    def publish(self) -> None:
        """Write the sensors' values into the state file."""
        with self._file.sampling(self.index) as sample:
            self._publish_sensors(sample)
            self._publish_counters(sample)
            self._publish_processes(sample)
            sample.utilization = round(self.load * 100)
            sample.memory_utilization = round(self.load * 60)
            sample.recovery_action = self.recovery_action
            sample.memory_used_bytes = self.vram_used_bytes

    def _publish_sensors(self, sample: layout.Sample) -> None:
        reading, model = self.plant.reading(), self.entry.model
        sample.temperature_celsius = reading.temperature_celsius
        sample.memory_temperature_celsius = reading.memory_temperature_celsius or 0
        sample.power_average_mw = milli(reading.average_watts)
        sample.power_instant_mw = milli(reading.instant_watts)
        sample.sm_mhz = reading.sm_mhz
        sample.memory_mhz = reading.memory_mhz
        sample.video_mhz = model.clocks.video_maximum * reading.sm_mhz // model.clocks.sm_maximum
        sample.performance_state = reading.performance_state
        sample.reasons = int(reading.reasons)
        if Capability.FAN in model.capabilities:
            sample.fan_percent = fan_percent(self.plant.die_celsius)

    def _publish_counters(self, sample: layout.Sample) -> None:
        violations = self.plant.violations
        sample.energy_mj = milli(self.plant.energy_joules)
        sample.violation_power_ns = nanoseconds(violations.power_seconds)
        sample.violation_software_thermal_ns = nanoseconds(violations.software_thermal_seconds)
        sample.violation_hardware_thermal_ns = nanoseconds(violations.hardware_thermal_seconds)

    def _publish_processes(self, sample: layout.Sample) -> None:
        """One entry a process, however many contexts it has."""
        held: dict[int, tuple[int, float, Kind]] = {}
        for context in self.contexts:
            vram_bytes, load, kinds = held.get(context.pid, (0, 0.0, Kind.UNLISTED))
            kinds |= KINDS[context.kind]
            held[context.pid] = (vram_bytes + context.vram_bytes, load + context.load, kinds)
        sample.process_count = len(held)
        now = unix_microseconds() if held else 0
        for number, (pid, (vram_bytes, load, kinds)) in enumerate(held.items()):
            process = sample.processes[number]
            process.pid = pid
            process.memory_bytes = vram_bytes
            process.sm_utilization = round(min(1.0, load) * 100)
            process.seen_unix_us = now
            process.kinds = int(kinds)

    def _check_room(self, wanted_bytes: int, held_bytes: int) -> None:
        free = self.entry.model.memory_bytes - self.vram_used_bytes + held_bytes
        if wanted_bytes > free:
            raise RefusedError(
                f"out of memory on {self.uuid}: {wanted_bytes} bytes wanted, {free} bytes free"
            )

    def _take_over(self) -> None:
        """Go on where a killed daemon stopped: as warm, as much energy used."""
        sample = self.card.sample
        self.plant.energy_joules = sample.energy_mj / 1000
        violations = self.plant.violations
        violations.power_seconds = sample.violation_power_ns / 1e9
        violations.software_thermal_seconds = sample.violation_software_thermal_ns / 1e9
        violations.hardware_thermal_seconds = sample.violation_hardware_thermal_ns / 1e9
        if sample.temperature_celsius > 0:
            watts = sample.power_instant_mw / 1000
            die = sample.temperature_celsius + 0.5
            sink = die - self.entry.model.thermal.die_resistance * watts
            air = self.world.ambient_celsius + self.entry.model.thermal.inlet_offset_celsius
            self.plant.settle_at(watts, sink, die, air)
        self.recovery_action = sample.recovery_action


def unpack_lock(word: int) -> tuple[int, int] | None:
    """A clock lock as (least, most) MHz; None when not locked."""
    return (word >> 32, word & 0xFFFFFFFF) if word else None


def fan_percent(die_celsius: float) -> int:
    """An ordinary fan curve: 30 % up to 45 C, all it has at 85 C. Shown only: cooling is fixed."""
    return min(100, max(30, round(30 + (die_celsius - 45) * 1.75)))


def nanoseconds(seconds: float) -> int:
    """Nanoseconds, as NVML counts violations."""
    return round(seconds * 1e9)
