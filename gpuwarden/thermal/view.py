"""The guard's picture of its card: what was seen last, and the state that follows. Pure.

Watching only: the policy that acts on it stands above.
"""

from dataclasses import dataclass, field, replace

from gpuwarden.control.states import ThermalData
from gpuwarden.thermal.observation import CardName, NotSeen, Observation, Seen, Trouble
from gpuwarden.thermal.thresholds import Thresholds, thresholds_of
from gpuwarden.values import ThermalState

BLIND_AFTER_SECONDS = 3.0  # design, "A hung driver": also how long a snapshot may be trusted
NOT_IN_THIS_VERSION = "not in this version: watching only"
ACTUATORS = (
    "power-limit",
    "sm-clock-lock",
    "memory-clock-lock",
    "batch-limit",
    "dispatch-duty",
)


@dataclass(frozen=True, slots=True)
class View:
    """What is known of the card.

    :ivar seen: the last sample; kept for as long as it may be trusted.
    :ivar seen_at: its moment, in seconds of the monotonic clock; the start before the first.
    :ivar trouble: why the last attempt brought none.
    :ivar since_unix_microseconds: when the state was entered.
    """

    gpu_index: int
    seen_at: float
    since_unix_microseconds: int
    card: CardName = field(default_factory=CardName)
    seen: Seen | None = None
    thresholds: Thresholds | None = None
    trouble: NotSeen | None = None
    state: ThermalState = ThermalState.BLIND
    reason: str = "starting"


def take(view: View, observation: Observation, now: float, unix_microseconds: int) -> View:
    """The view after an attempt that was completed at ``now``."""
    if isinstance(observation, Seen):
        thresholds = view.thresholds
        if view.seen is None or view.seen.limits != observation.limits or thresholds is None:
            thresholds = thresholds_of(observation.limits)
        view = replace(
            view,
            card=observation.card,
            seen=observation,
            seen_at=now,
            thresholds=thresholds,
            trouble=None,
        )
    else:
        view = replace(view, card=observation.card, trouble=observation)
    return age(view, now, unix_microseconds)


def age(view: View, now: float, unix_microseconds: int) -> View:
    """The view as it is at ``now``, with or without news."""
    state, reason = _judge(view, now)
    if state in (ThermalState.BLIND, ThermalState.LOST):
        view = replace(view, seen=None)
    since = view.since_unix_microseconds if state == view.state else unix_microseconds
    return replace(view, state=state, reason=reason, since_unix_microseconds=since)


def thermal_data(view: View, note: str = "") -> ThermalData:
    """The view as it is published.

    :param note: what else is to be said, where the state itself needs no reason.
    """
    seen, thresholds = view.seen, view.thresholds
    data = ThermalData(
        index=view.gpu_index,
        uuid=view.card.uuid,
        name=view.card.name,
        pci_address=view.card.pci_address,
        numa_node=view.card.numa_node,
        alert_celsius=thresholds.alert_celsius if thresholds else None,
        critical_celsius=thresholds.critical_celsius if thresholds else None,
        safe_celsius=thresholds.safe_celsius if thresholds else None,
        state=view.state,
        since=view.since_unix_microseconds,
        reason="; ".join(text for text in (view.reason, note) if text),
        actuators=dict.fromkeys(ACTUATORS, NOT_IN_THIS_VERSION),
    )
    if seen is None:
        return data
    sample, condition = seen.sample, seen.condition
    return data.model_copy(
        update={
            "temperature_celsius": sample.temperature_celsius,
            "memory_temperature_celsius": sample.memory_temperature_celsius,
            "power_watts": sample.power_watts,
            "power_limit_watts": condition.power_limit_watts,
            "utilization": sample.utilization,
            "vram_used_bytes": condition.vram_used_bytes,
            "vram_total_bytes": condition.vram_total_bytes,
            "clock_event_reasons": list(sample.clock_event_reasons),
            "recovery_action": condition.recovery_action,
        }
    )


def status_line(data: ThermalData, simulated: bool) -> str:
    """The guard in one line: ``GPU 0 71 C, 300 of 350 W, normal (watching only)``."""
    prefix = "SIMULATED " if simulated else ""
    state = f"{data.state.value} (watching only)"
    if data.temperature_celsius is None:
        return f"{prefix}GPU {data.index} {state}: {data.reason}"
    power = _figure(data.power_watts), _figure(data.power_limit_watts)
    reason = f": {data.reason}" if data.reason else ""
    return (
        f"{prefix}GPU {data.index} {data.temperature_celsius:.0f} C, "
        f"{power[0]} of {power[1]} W, {state}{reason}"
    )


def _judge(view: View, now: float) -> tuple[ThermalState, str]:
    trouble = view.trouble
    if trouble is not None and trouble.trouble is Trouble.LOST:
        return ThermalState.LOST, trouble.text
    if trouble is not None and trouble.trouble is not Trouble.SENSOR:
        return ThermalState.BLIND, trouble.text
    silence = now - view.seen_at
    if view.seen is None or silence >= BLIND_AFTER_SECONDS:
        if trouble is not None:
            return ThermalState.BLIND, trouble.text
        if view.seen is None and silence < BLIND_AFTER_SECONDS:
            return ThermalState.BLIND, view.reason
        return ThermalState.BLIND, f"the driver has not answered for {silence:.0f} s"
    assert view.thresholds is not None, "set with every sample"
    return _heat(view.seen, view.thresholds, view.state)


def _heat(seen: Seen, limits: Thresholds, before: ThermalState) -> tuple[ThermalState, str]:
    """Critical and alert at their thresholds; alert ends at safe, so that it doesn't flutter."""
    die = seen.sample.temperature_celsius
    memory = seen.sample.memory_temperature_celsius
    sensors = [("die", die, limits.alert_celsius, limits.critical_celsius)]
    if limits.memory_alert_celsius is not None and limits.memory_critical_celsius is not None:
        sensors.append(
            ("memory", memory, limits.memory_alert_celsius, limits.memory_critical_celsius)
        )
    readings = [(name, value, a, c) for name, value, a, c in sensors if value is not None]
    for name, value, _, critical in readings:
        if value >= critical:
            return ThermalState.CRITICAL, f"{name} {value:.0f} C, critical is {critical:.0f} C"
    for name, value, alert, _ in readings:
        if value >= alert:
            return ThermalState.ALERT, f"{name} {value:.0f} C, alert is {alert:.0f} C"
    band = limits.alert_celsius - limits.safe_celsius
    if before in (ThermalState.ALERT, ThermalState.CRITICAL):
        for name, value, alert, _ in readings:
            if value > alert - band:
                return ThermalState.ALERT, f"{name} {value:.0f} C, safe is {alert - band:.0f} C"
    return ThermalState.NORMAL, ""


def _figure(watts: float | None) -> str:
    return "?" if watts is None else f"{watts:.0f}"
