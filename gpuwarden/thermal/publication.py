# SPDX-License-Identifier: Apache-2.0
"""The view as it is published: the snapshot, and one line for systemctl. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gpuwarden.control.states import ThermalData, Xid
from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.thermal.view import View


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the driver's thread knows beside the readings."""

    original_watts: float | None = None
    sm_lock_mhz: int | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def thermal_data(
    view: View,
    facts: CardFacts,
    thresholds: Thresholds | None,
    note: str = "",
    xids: Iterable[Xid] = (),
) -> ThermalData:
    """The view as it is published.

    :param note: what else is to be said, such as thresholds that were refused.
    """
    settings = view.judgement.settings
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
        reason="; ".join(text for text in (view.judgement.reason, note) if text),
        actuators=facts.reasons,
        original_power_limit_watts=facts.original_watts,
        batch_limit=settings.batch_limit,
        dispatch_duty=settings.dispatch_duty,
        throttles=view.throttles,
        recoveries=view.recoveries,
        admission="paused" if settings.paused else "open",
        stop_requested=settings.stop_requested,
        sm_clock_lock_mhz=facts.sm_lock_mhz,
        xids=list(xids),
        throttle_seconds=_rounded(view.throttle_seconds),
        state_seconds=_rounded(view.state_seconds),
    )
    return data if view.seen is None else data.model_copy(update=_readings(view))


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def _readings(view: View) -> dict[str, object]:
    assert view.seen is not None, "asked before"
    sample, condition = view.seen.sample, view.seen.condition
    return {
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


def status_line(data: ThermalData, simulated: bool) -> str:
    """The guard in one line: ``GPU 0 71 C, 300 of 350 W, normal``."""
    prefix = "SIMULATED " if simulated else ""
    reason = f": {data.reason}" if data.reason else ""
    if data.temperature_celsius is None:
        return f"{prefix}GPU {data.index} {data.state.value}{reason}"
    drawn, limit = _figure(data.power_watts), _figure(data.power_limit_watts)
    return (
        f"{prefix}GPU {data.index} {data.temperature_celsius:.0f} C, "
        f"{drawn} of {limit} W, {data.state.value}{reason}"
    )


def _figure(watts: float | None) -> str:
    return "?" if watts is None else f"{watts:.0f}"
