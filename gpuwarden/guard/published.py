# SPDX-License-Identifier: Apache-2.0
"""What the other processes published last, where it is fresh enough to be believed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gpuwarden import names
from gpuwarden.control.host import PortHolder
from gpuwarden.control.snapshot import (
    Snapshot,
    SnapshotError,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.states import Card, GatewayData, Holder, ScanData, ThermalData

RELEASED = "released"


def thermal_states(cards: Iterable[Card]) -> dict[int, ThermalData]:
    """What each card's thermal guard says; a card whose guard is silent is not in it."""
    return {
        card.index: snapshot.data
        for card in cards
        if (snapshot := _fresh(names.thermal_snapshot_file(card.index), ThermalData))
    }


def units_that_hold(gpu_index: int) -> list[str]:
    """Which of a card's own services have it open; one that is silent is down and holds nothing."""
    places: dict[str, tuple[Path, type[BaseModel]]] = {
        names.thermal_unit(gpu_index): (names.thermal_snapshot_file(gpu_index), ThermalData),
        names.scan_unit(gpu_index): (names.scan_snapshot_file(gpu_index), ScanData),
    }
    said = {unit: _fresh(path, kind) for unit, (path, kind) in places.items()}
    return [unit for unit, last in said.items() if last and last.data.state != RELEASED]


def memory_in_use(gpu_index: int) -> tuple[int | None, int]:
    """Bytes of a card's memory in use, as last published, and when, by CLOCK_BOOTTIME in ns."""
    snapshot = _fresh(names.thermal_snapshot_file(gpu_index), ThermalData)
    if snapshot is None:
        return None, boottime_nanoseconds()
    return snapshot.data.vram_used_bytes, snapshot.boottime_nanoseconds


def card_holders(gpu_index: int) -> list[Holder] | None:
    """Who holds a card's memory; None while that is not known for certain."""
    snapshot = _fresh(names.scan_snapshot_file(gpu_index), ScanData)
    if snapshot is None or snapshot.data.problem or snapshot.data.state != "scanning":
        return None
    holders: list[Holder] = snapshot.data.holders
    return holders


def gateway_state() -> GatewayData | None:
    """What the gateway says; None while it is silent."""
    snapshot = _fresh(names.GATEWAY_STATE_FILE, GatewayData)
    return snapshot.data if snapshot else None


def port_fault() -> str:
    """Why the HTTP port could not be opened, in words."""
    try:
        holder = read_snapshot(names.PORT_HOLDER_FILE, PortHolder).data
    except SnapshotError:
        return "the HTTP port can't be opened (systemctl status medgemma-gateway.socket)"
    return (
        f"{holder.address} is held by {holder.command} (PID {holder.pid}): stop it, or give "
        "the front door another port with `systemctl edit medgemma-gateway.socket`"
    )


def _fresh(path: Path, kind: Any) -> Snapshot[Any] | None:
    try:
        snapshot: Snapshot[Any] = read_snapshot(path, kind)
    except SnapshotError:
        return None  # its absence is what the state says: blind, or a silent gateway
    # The clock after the file: one that was written in between would be of the future.
    return snapshot if snapshot.is_fresh(boottime_nanoseconds()) else None
