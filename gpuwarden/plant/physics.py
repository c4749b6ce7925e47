# SPDX-License-Identifier: Apache-2.0
"""The physics of one card: watts from load, limit and clocks; degrees from watts; what the driver
does about them. Pure: no I/O, no clock of its own; any step length gives the same curve.

Nodes: a die (fast) on a heat sink (slow) in inlet air, and HBM beside the die where the card has
a sensor for it. The driver lowers clocks from the maximum operating temperature on, halves them at
the slowdown threshold, and drops the card off the bus at the shutdown threshold.
"""

import copy
import math
from collections import deque
from dataclasses import dataclass
from enum import IntFlag
from itertools import pairwise

from gpuwarden.plant.cards import CardModel, MemoryNode

DEFAULT_AMBIENT_CELSIUS = 24.0
LEAKAGE_PER_CELSIUS = 0.003  # silicon leaks more when hot: +0.3 % of the watts per degree ...
LEAKAGE_REFERENCE_CELSIUS = 60.0  # ... above this one
# Clock against power of an H200 under full load: 1500 of 1850 MHz takes 0.70 of the dynamic watts.
CLOCK_EXPONENT = 1.7
MEMORY_POWER_SHARE = 0.2  # of the dynamic watts goes with the memory clock
POWER_CONTROL_SECONDS = 0.1  # trigger to new watts: 97 ms measured on a V100
INSTANT_SENSOR_SECONDS = 0.05
AVERAGE_WINDOW_SECONDS = 1.0  # NVML's power average: a plain mean, seen as a 1 s ramp at a step
SOFTWARE_SLOWDOWN_PER_SECOND = 0.25  # share of the clock given up each second while too hot
SOFTWARE_RECOVERY_PER_SECOND = 0.05
HARDWARE_SLOWDOWN_FACTOR = 0.5  # the slowdown signal halves the clocks
HARDWARE_RELEASE_CELSIUS = 2.0  # hysteresis of that signal
LONGEST_STEP_SECONDS = 0.1  # longer steps are cut, so that the driver's reactions keep up

# Tokens a second of a 3090 against its power limit, both as shares of those at 350 W.
THROUGHPUT_CURVE = tuple(
    (watts / 350.0, tokens / 103.0)
    for watts, tokens in (
        (0, 0),
        (100, 18),
        (150, 42),
        (175, 64),
        (200, 83),
        (225, 91),
        (250, 97),
        (300, 101),
        (350, 103),
    )
)


class ClockReason(IntFlag):
    """nvmlClocksEventReason* of nvml.h."""

    GPU_IDLE = 0x1
    SW_POWER_CAP = 0x4
    HW_SLOWDOWN = 0x8
    SW_THERMAL_SLOWDOWN = 0x20
    HW_THERMAL_SLOWDOWN = 0x40


@dataclass(frozen=True, slots=True)
class Environment:
    """What the world does to the card."""

    ambient_celsius: float = DEFAULT_AMBIENT_CELSIUS
    load: float = 0.0  # 0 idle to 1 full
    resistance_factor: float = 1.0  # of the heat sink: 1.6 is a failed fan
    context_open: bool = False  # an idle card with a context keeps its clocks up


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked of the driver."""

    power_limit_watts: float
    sm_lock_mhz: tuple[int, int] | None = None
    memory_lock_mhz: tuple[int, int] | None = None


@dataclass(slots=True)
class Violations:
    """Seconds spent below the wanted clocks, by cause, since the driver was loaded."""

    power_seconds: float = 0.0
    software_thermal_seconds: float = 0.0
    hardware_thermal_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What the driver reports: whole degrees, lagging watts."""

    temperature_celsius: int
    memory_temperature_celsius: int | None
    instant_watts: float
    average_watts: float
    sm_mhz: int
    memory_mhz: int
    reasons: ClockReason
    performance_state: int


def throughput_share(card: CardModel, watts: float, demanded_watts: float) -> float:
    """Share of the demanded work that a card does at ``watts``, by the measured 3090 curve.

    :param demanded_watts: what the work would draw without any limit.
    :return: 0 to 1.
    """
    demanded = curve_at(demanded_watts / card.limit_default_watts)
    return min(1.0, curve_at(watts / card.limit_default_watts) / demanded) if demanded > 0 else 1.0


def curve_at(share_of_limit: float) -> float:
    """Throughput at a share of the default power limit; 1 from the default limit on."""
    for (x0, y0), (x1, y1) in pairwise(THROUGHPUT_CURVE):
        if share_of_limit <= x1:
            return y0 + (y1 - y0) * max(0.0, share_of_limit - x0) / (x1 - x0)
    return 1.0


class Plant:
    """One card's state. Temperatures in Celsius, unrounded; power in watts."""

    __slots__ = (
        "_average_joules",
        "_average_seconds",
        "_power_window",
        "card",
        "clock_factor",
        "die_celsius",
        "energy_joules",
        "hardware_slowdown",
        "instant_watts",
        "memory_celsius",
        "memory_mhz",
        "memory_sink_celsius",
        "reasons",
        "shut_down",
        "sink_celsius",
        "sm_mhz",
        "violations",
        "watts",
    )

    def __init__(self, card: CardModel, environment: Environment | None = None) -> None:
        self.card = card
        self.energy_joules = 0.0
        self.violations = Violations()
        self.reattach(environment or Environment())

    def copy(self) -> "Plant":
        """The same card at the same moment, to go on elsewhere."""
        twin = copy.copy(self)
        twin.violations = copy.copy(self.violations)
        twin._power_window = self._power_window.copy()
        return twin

    def reattach(self, environment: Environment) -> None:
        """Start as a card that has long stood in ``environment`` with nothing to do."""
        self.shut_down = False
        self.hardware_slowdown = False
        self.clock_factor = 1.0
        self.reasons = ClockReason(0)
        self.sm_mhz = self.card.clocks.sm_idle
        self.memory_mhz = self.card.clocks.memory_idle
        self.settle(environment)

    def settle(self, environment: Environment, sink_celsius: float | None = None) -> None:
        """Put every node where it would end up idle; the sink at ``sink_celsius`` if given."""
        nodes = self.card.thermal
        air = environment.ambient_celsius + nodes.inlet_offset_celsius
        sink_resistance = nodes.sink_resistance * environment.resistance_factor
        watts = self.card.power.idle_watts
        sink = die = air
        for _ in range(20):  # leakage and temperature agree to a millidegree long before that
            sink = air + sink_resistance * watts if sink_celsius is None else sink_celsius
            die = sink + nodes.die_resistance * watts
            watts = self.card.power.idle_watts * leakage(die)
        self.settle_at(watts, sink, die, air)
        if sink_celsius is not None and nodes.memory is not None:
            # A sink that was heated by something else is as hot under the memory.
            self._settle_memory(nodes.memory, air, max(sink_celsius, air))

    def settle_at(self, watts: float, sink: float, die: float, air: float) -> None:
        """Set all nodes and both power readings to a steady state."""
        self.sink_celsius = sink
        self.die_celsius = die
        self.watts = self.instant_watts = watts
        memory = self.card.thermal.memory
        self.memory_celsius: float | None = None
        self.memory_sink_celsius = air
        if memory is not None:
            self._settle_memory(memory, air, air + memory.sink_ratio * (sink - air))
        self._power_window = deque([(AVERAGE_WINDOW_SECONDS, watts)])
        self._average_seconds = AVERAGE_WINDOW_SECONDS
        self._average_joules = AVERAGE_WINDOW_SECONDS * watts

    def _settle_memory(self, node: MemoryNode, air: float, sink: float) -> None:
        self.memory_sink_celsius = sink
        die_rise = self.die_celsius - self.sink_celsius
        self.memory_celsius = memory_target(node, sink, die_rise, self.watts)

    def step(self, seconds: float, environment: Environment, settings: Settings) -> None:
        """Let ``seconds`` pass with the driver in charge."""
        while seconds > 1e-9:
            part = min(seconds, LONGEST_STEP_SECONDS)
            seconds -= part
            if self.shut_down:
                self.step_at_watts(part, 0.0, environment)
                continue
            self._react(part)
            wanted = self.choose_watts(environment, settings)
            settled = 1.0 - math.exp(-part / POWER_CONTROL_SECONDS)
            self.step_at_watts(part, self.watts + (wanted - self.watts) * settled, environment)
            self._count(part)

    def step_at_watts(self, seconds: float, watts: float, environment: Environment) -> None:
        """Let ``seconds`` pass with the card drawing exactly ``watts``: physics without a driver.

        Each node is a first-order lag solved exactly, so the step may be of any length.
        """
        nodes = self.card.thermal
        air = environment.ambient_celsius + nodes.inlet_offset_celsius
        factor = environment.resistance_factor
        sink_target = air + nodes.sink_resistance * factor * watts
        # The sink's heat capacity stays, so a higher resistance is also a slower sink.
        sink_share = 1.0 - math.exp(-seconds / (nodes.sink_seconds * factor))
        self.sink_celsius += (sink_target - self.sink_celsius) * sink_share
        die_target = self.sink_celsius + nodes.die_resistance * watts
        self.die_celsius += (die_target - self.die_celsius) * (
            1.0 - math.exp(-seconds / nodes.die_seconds)
        )
        if nodes.memory is not None and self.memory_celsius is not None:
            rise = nodes.memory.sink_ratio * nodes.sink_resistance * factor * watts
            self.memory_sink_celsius += (air + rise - self.memory_sink_celsius) * sink_share
            die_rise = self.die_celsius - self.sink_celsius
            target = memory_target(nodes.memory, self.memory_sink_celsius, die_rise, watts)
            self.memory_celsius += (target - self.memory_celsius) * (
                1.0 - math.exp(-seconds / nodes.memory.seconds)
            )
        self.watts = watts
        self.instant_watts += (watts - self.instant_watts) * (
            1.0 - math.exp(-seconds / INSTANT_SENSOR_SECONDS)
        )
        self._average(seconds, watts)
        self.energy_joules += watts * seconds

    def reading(self) -> Reading:
        """What the driver would report now."""
        busy = not self.reasons & ClockReason.GPU_IDLE
        return Reading(
            temperature_celsius=math.floor(self.die_celsius),
            memory_temperature_celsius=(
                None if self.memory_celsius is None else math.floor(self.memory_celsius)
            ),
            instant_watts=self.instant_watts,
            average_watts=self._average_joules / self._average_seconds,
            sm_mhz=self.sm_mhz,
            memory_mhz=self.memory_mhz,
            reasons=self.reasons,
            performance_state=0 if busy else self.card.idle_performance_state,
        )

    def demanded_watts(self, load: float) -> float:
        """What ``load`` would draw at full clocks and without a limit, at the present die."""
        power = self.card.power
        dynamic = power.full_load_watts - power.idle_watts
        return (power.idle_watts + load * dynamic) * leakage(self.die_celsius)

    def _react(self, seconds: float) -> None:
        """Slow down, or shut down, by the temperatures of this moment."""
        limits = self.card.thresholds
        memory_excess = (
            self.memory_celsius - limits.memory_maximum
            if self.memory_celsius is not None and limits.memory_maximum is not None
            else -math.inf
        )
        self.shut_down = self.die_celsius >= limits.shutdown
        if self.die_celsius >= limits.slowdown:
            self.hardware_slowdown = True
        elif self.die_celsius < limits.slowdown - HARDWARE_RELEASE_CELSIUS:
            self.hardware_slowdown = False
        if max(self.die_celsius - limits.maximum_operating, memory_excess) >= 0:
            lowered = self.clock_factor - SOFTWARE_SLOWDOWN_PER_SECOND * seconds
            self.clock_factor = max(
                lowered, self.card.clocks.sm_minimum / self.card.clocks.sm_maximum
            )
        else:
            self.clock_factor = min(1.0, self.clock_factor + SOFTWARE_RECOVERY_PER_SECOND * seconds)

    def choose_watts(self, environment: Environment, settings: Settings) -> float:
        """Choose clocks as the driver does; the watts that follow, which no time has passed for."""
        clocks = self.card.clocks
        ceiling = clocks.sm_maximum * self.clock_factor
        if self.hardware_slowdown:
            ceiling *= HARDWARE_SLOWDOWN_FACTOR
        if settings.sm_lock_mhz is not None:
            ceiling = min(ceiling, settings.sm_lock_mhz[1])
        ceiling = max(ceiling, clocks.sm_minimum)
        memory_mhz = clocks.memory_maximum
        if settings.memory_lock_mhz is not None:
            memory_mhz = min(memory_mhz, settings.memory_lock_mhz[1])
        power = self.card.power
        leak = leakage(self.die_celsius)
        dynamic = environment.load * (power.full_load_watts - power.idle_watts) * leak
        dynamic *= 1.0 - MEMORY_POWER_SHARE * (1.0 - memory_mhz / clocks.memory_maximum)
        idle = power.idle_watts * leak
        wanted = idle + dynamic * (ceiling / clocks.sm_maximum) ** CLOCK_EXPONENT
        capped = wanted > settings.power_limit_watts and environment.load > 0
        if capped:
            share = max(0.0, settings.power_limit_watts - idle) / dynamic
            capped_mhz = clocks.sm_maximum * share ** (1.0 / CLOCK_EXPONENT)
            ceiling = min(ceiling, max(capped_mhz, clocks.sm_minimum))
            wanted = idle + dynamic * (ceiling / clocks.sm_maximum) ** CLOCK_EXPONENT
        self._set_clocks(environment, settings, ceiling, memory_mhz)
        self._set_reasons(environment, capped)
        return float(wanted)

    def _set_clocks(
        self, environment: Environment, settings: Settings, ceiling: float, memory_mhz: int
    ) -> None:
        clocks = self.card.clocks
        if environment.load > 0 or environment.context_open:
            steps = int(ceiling - clocks.sm_minimum) // clocks.sm_step
            self.sm_mhz = clocks.sm_minimum + steps * clocks.sm_step
            self.memory_mhz = memory_mhz
        else:
            self.sm_mhz = min(clocks.sm_idle, int(ceiling))
            if settings.sm_lock_mhz is not None:
                self.sm_mhz = max(self.sm_mhz, min(settings.sm_lock_mhz[0], int(ceiling)))
            self.memory_mhz = min(clocks.memory_idle, memory_mhz)

    def _set_reasons(self, environment: Environment, capped: bool) -> None:
        reasons = ClockReason(0)
        idle_clocks_differ = self.card.clocks.sm_idle != self.card.clocks.sm_maximum
        if environment.load <= 0 and not environment.context_open and idle_clocks_differ:
            reasons |= ClockReason.GPU_IDLE
        if capped:
            reasons |= ClockReason.SW_POWER_CAP
        if self.clock_factor < 1.0:
            reasons |= ClockReason.SW_THERMAL_SLOWDOWN
        if self.hardware_slowdown:
            reasons |= ClockReason.HW_SLOWDOWN | ClockReason.HW_THERMAL_SLOWDOWN
        self.reasons = reasons

    def _count(self, seconds: float) -> None:
        reasons, violations = int(self.reasons), self.violations
        if reasons & ClockReason.SW_POWER_CAP.value:
            violations.power_seconds += seconds
        if reasons & ClockReason.SW_THERMAL_SLOWDOWN.value:
            violations.software_thermal_seconds += seconds
        if reasons & ClockReason.HW_THERMAL_SLOWDOWN.value:
            violations.hardware_thermal_seconds += seconds

    def _average(self, seconds: float, watts: float) -> None:
        """Slide the 1 s window of the average by one step."""
        window = self._power_window
        window.append((seconds, watts))
        self._average_seconds += seconds
        self._average_joules += seconds * watts
        while (excess := self._average_seconds - AVERAGE_WINDOW_SECONDS) > 1e-9:
            old_seconds, old_watts = window.popleft()
            if old_seconds > excess:
                window.appendleft((old_seconds - excess, old_watts))
                old_seconds = excess
            self._average_seconds -= old_seconds
            self._average_joules -= old_seconds * old_watts


def memory_target(node: MemoryNode, sink: float, die_rise: float, watts: float) -> float:
    """Where the HBM's temperature is heading, on its part of the sink and beside a warm die."""
    return sink + node.offset_celsius + node.die_coupling * die_rise + node.resistance * watts


def leakage(die_celsius: float) -> float:
    """Watts at this die temperature, relative to the reference temperature."""
    return 1.0 + LEAKAGE_PER_CELSIUS * (die_celsius - LEAKAGE_REFERENCE_CELSIUS)
