# SPDX-License-Identifier: Apache-2.0
"""One card: who it is, what it reads now, what it may bear. Reading only.

A card or driver that lacks a reading gives None for it; it is not asked again in that session,
since a refused call costs a hundred times an answered one (0.4 ms against 1 us on an H200).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpuwarden.nvml import calls
from gpuwarden.nvml.calls import Handle
from gpuwarden.nvml.errors import (
    CardLostError,
    DriverMissingError,
    NotSupportedError,
    NvmlError,
)
from gpuwarden.nvml.limits import CardLimits, Offsets, combine
from gpuwarden.nvml.vocabulary import (
    Architecture,
    Clock,
    Field,
    PowerKind,
    Threshold,
    Violation,
    clock_event_reasons,
    kernel_pci_address,
    recovery_action,
)

MILLIWATTS_PER_WATT = 1000
NANOSECONDS_PER_SECOND = 1_000_000_000
# A board was seen to say 749 W "instantaneous" beside an average of 1 W with a limit of 95 W; real
# excursions above the limit stay well below this.
MOST_ABOVE_MAXIMUM = 1.5
_COUNTER_FIELDS = (
    Field.SOFTWARE_POWER_CAP_NANOSECONDS,
    Field.SOFTWARE_THERMAL_NANOSECONDS,
    Field.HARDWARE_THERMAL_NANOSECONDS,
    Field.HARDWARE_POWER_BRAKE_NANOSECONDS,
)
_SAMPLED_FIELDS = (Field.MEMORY_TEMPERATURE, Field.POWER_INSTANTANEOUS_MILLIWATTS)


@dataclass(frozen=True, slots=True)
class CardIdentity:
    """Who a card is; ``index`` is NVML's of this moment, ``minor`` that of /dev/nvidia<minor>.

    The planner's listing alone has ``near_cpus`` (a CPU list) and ``mig_uuids``.
    """

    index: int
    uuid: str
    name: str
    pci_address: str
    minor: int | None
    near_cpus: str = ""
    mig_uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """What changes from moment to moment, read many times a second."""

    temperature_celsius: float | None
    memory_temperature_celsius: float | None
    power_watts: float | None
    power_kind: PowerKind
    utilization: float | None
    clock_event_reasons: tuple[str, ...]
    sm_clock_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class ClockEventCounters:
    """For how long the clocks have been held down, since the driver was loaded; None: unknown.

    Only differences mean something, and a card that is a little warm counts a little: judge the
    share of an interval, not that a counter moved.

    :ivar software_thermal_seconds: on drivers that count heat as one, hardware's share is in here.
    """

    software_power_cap_seconds: float | None = None
    software_thermal_seconds: float | None = None
    hardware_thermal_seconds: float | None = None
    hardware_power_brake_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What changes slowly, read once a second or less."""

    power_limit_watts: float | None
    vram_used_bytes: int | None
    vram_total_bytes: int | None
    recovery_action: str
    margin_celsius: float | None = None
    counters: ClockEventCounters = ClockEventCounters()


def identify(where: str, handle: Handle) -> CardIdentity:
    """Who the card behind ``handle`` is.

    :raises NvmlError: it doesn't say so much as its UUID and address.
    """
    info = calls.call(where, "nvmlDeviceGetPciInfo", handle)
    bus_id = info.busId.decode() if isinstance(info.busId, bytes) else str(info.busId)
    try:
        minor: int | None = int(calls.call(where, "nvmlDeviceGetMinorNumber", handle))
    except NotSupportedError:
        minor = None
    return CardIdentity(
        index=int(calls.call(where, "nvmlDeviceGetIndex", handle)),
        uuid=str(calls.call(where, "nvmlDeviceGetUUID", handle)),
        name=str(calls.call(where, "nvmlDeviceGetName", handle)),
        pci_address=kernel_pci_address(bus_id),
        minor=minor,
    )


class CardReader:
    """Reads one card; belongs to the thread and the session that opened it."""

    def __init__(self, where: str, handle: Handle) -> None:
        self._where = where
        self._handle = handle
        self._missing: set[str] = set()
        self._missing_fields: set[Field] = set()
        self._most_watts: float | None = None
        self._usage_kind: PowerKind | None = None

    def sample(self) -> Sample:
        """The card's state now.

        :raises NvmlError: the temperature can't be read, or the card or driver is gone.
        """
        fields = self._fields(_SAMPLED_FIELDS)
        power_watts, power_kind = self._power(fields)
        utilization = self._optional("nvmlDeviceGetUtilizationRates")
        return Sample(
            temperature_celsius=self._temperature(),
            memory_temperature_celsius=_positive(fields.get(Field.MEMORY_TEMPERATURE)),
            power_watts=power_watts,
            power_kind=power_kind,
            utilization=None if utilization is None else utilization.gpu / 100,
            clock_event_reasons=clock_event_reasons(self._clock_event_bits()),
            sm_clock_mhz=self._sm_clock_mhz(),
        )

    def condition(self) -> Condition:
        """Limit, memory, health, margin. Raises NvmlError if the card or driver is gone."""
        limit = self._optional("nvmlDeviceGetPowerManagementLimit")
        memory = self._optional("nvmlDeviceGetMemoryInfo")
        fields = self._fields((Field.RECOVERY_ACTION, *_COUNTER_FIELDS))
        action = fields.get(Field.RECOVERY_ACTION)
        margin = self._optional("nvmlDeviceGetMarginTemperature")
        return Condition(
            power_limit_watts=_watts(limit),
            vram_used_bytes=None if memory is None else int(memory.used),
            vram_total_bytes=None if memory is None else int(memory.total),
            recovery_action=recovery_action(None if action is None else int(action)),
            margin_celsius=None if margin is None else float(margin),
            counters=self._counters(fields),
        )

    def limits(self) -> CardLimits:
        """What the card may bear, as it says; without a temperature only what it says in degrees.

        :raises NvmlError: the card or driver is gone.
        """
        constraints = self._optional("nvmlDeviceGetPowerManagementLimitConstraints")
        default = self._optional("nvmlDeviceGetPowerManagementDefaultLimit")
        fields = self._fields(
            (
                Field.MAXIMUM_OPERATING_OFFSET,
                Field.SLOWDOWN_OFFSET,
                Field.SHUTDOWN_OFFSET,
                Field.MEMORY_MAXIMUM_OFFSET,
            )
        )
        margin = self._optional("nvmlDeviceGetMarginTemperature")
        maximum_watts = None if constraints is None else _watts(constraints[1])
        if maximum_watts:
            self._most_watts = maximum_watts * MOST_ABOVE_MAXIMUM
        return combine(
            {kind: self._threshold(kind) for kind in Threshold},
            Offsets(
                temperature_celsius=self._tolerant("temperature", self._temperature),
                margin_celsius=None if margin is None else float(margin),
                maximum_operating_celsius=fields.get(Field.MAXIMUM_OPERATING_OFFSET),
                slowdown_celsius=fields.get(Field.SLOWDOWN_OFFSET),
                shutdown_celsius=fields.get(Field.SHUTDOWN_OFFSET),
            ),
            power_minimum_watts=None if constraints is None else _watts(constraints[0]),
            power_maximum_watts=maximum_watts,
            power_default_watts=_watts(default),
        )

    def _temperature(self) -> float | None:
        """The die's temperature; None on a card without a sensor."""
        for function in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"):
            read = partial(self._call, function, calls.DIE_SENSOR)
            value = self._unless_missing(function, read)
            if value is not None:
                return float(value)
        return None

    def _power(self, fields: dict[Field, float | int]) -> tuple[float | None, PowerKind]:
        """The watts of this moment where the card has them and they can be, else the average."""
        instantaneous = _watts(fields.get(Field.POWER_INSTANTANEOUS_MILLIWATTS))
        if self._can_be(instantaneous):
            return instantaneous, PowerKind.INSTANTANEOUS
        usage = _watts(self._optional("nvmlDeviceGetPowerUsage"))
        return (usage, self._kind_of_usage()) if self._can_be(usage) else (None, PowerKind.UNKNOWN)

    def _can_be(self, watts: float | None) -> bool:
        return watts is not None and 0 < watts <= (self._most_watts or float("inf"))

    def _kind_of_usage(self) -> PowerKind:
        """nvml.h: the mean of a second from Ampere on, but of this moment on GA100 and before."""
        if self._usage_kind is None:
            generation = self._optional("nvmlDeviceGetArchitecture")
            compute = self._optional("nvmlDeviceGetCudaComputeCapability")
            is_ga100 = compute is not None and tuple(compute) == (8, 0)
            is_older = generation is not None and generation < Architecture.AMPERE
            self._usage_kind = (
                PowerKind.INSTANTANEOUS if is_older or is_ga100 else PowerKind.AVERAGE
            )
        return self._usage_kind

    def _counters(self, fields: dict[Field, float | int]) -> ClockEventCounters:
        """By fields where the driver has them, else by the older call."""
        power, software, hardware, brake = (_seconds(fields.get(each)) for each in _COUNTER_FIELDS)
        if software is None and hardware is None:
            software = self._violation(Violation.THERMAL)
        if power is None:
            power = self._violation(Violation.POWER)
        return ClockEventCounters(power, software, hardware, brake)

    def _violation(self, kind: Violation) -> float | None:
        function = "nvmlDeviceGetViolationStatus"
        found = self._tolerant(f"{function} {kind.name}", lambda: self._call(function, int(kind)))
        return None if found is None else _seconds(found.violationTime)

    def _sm_clock_mhz(self) -> float | None:
        read = partial(self._call, "nvmlDeviceGetClockInfo", int(Clock.SM))
        value = self._tolerant("SM clock", read)
        return None if value is None else float(value)

    def _clock_event_bits(self) -> int:
        for function in (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ):
            bits = self._optional(function)
            if bits is not None:
                return int(bits)
        return 0

    def _threshold(self, kind: Threshold) -> float | None:
        value = self._tolerant(
            f"threshold {kind.name}",
            lambda: self._call("nvmlDeviceGetTemperatureThreshold", int(kind)),
        )
        return _positive(value)

    def _fields(self, wanted: tuple[Field, ...]) -> dict[Field, float | int]:
        """Those of the fields that the card has; one that it lacks is not asked again."""
        asked = [field for field in wanted if field not in self._missing_fields]
        if not asked:
            return {}
        answers = self._tolerant(
            "nvmlDeviceGetFieldValues",
            lambda: calls.field_values(self._where, self._handle, asked),
        )
        if answers is None:
            return {}
        values: dict[Field, float | int]
        values, missing = answers
        self._missing_fields |= missing
        return values

    def _optional(self, function: str) -> Any:
        return self._tolerant(function, lambda: self._call(function))

    def _tolerant(self, name: str, read: Callable[[], Any]) -> Any:
        """``read()``, or None where only this reading fails; a lost card or driver raises."""
        try:
            return self._unless_missing(name, read)
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError:
            return None

    def _unless_missing(self, name: str, read: Callable[[], Any]) -> Any:
        """``read()``, or None once and for all where the card or driver has no such reading."""
        if name in self._missing:
            return None
        try:
            return read()
        except NotSupportedError:
            self._missing.add(name)
            return None

    def _call(self, function: str, *arguments: object) -> Any:
        return calls.call(self._where, function, self._handle, *arguments)


def _watts(milliwatts: float | None) -> float | None:
    return None if milliwatts is None else milliwatts / MILLIWATTS_PER_WATT


def _seconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / NANOSECONDS_PER_SECOND


def _positive(value: float | None) -> float | None:
    """A temperature of nought or less is a driver's way to say that it has no sensor."""
    return None if value is None or value <= 0 else float(value)
