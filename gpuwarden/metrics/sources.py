# SPDX-License-Identifier: Apache-2.0
"""Reads what the components have published last."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from gpuwarden import names
from gpuwarden.control.snapshot import (
    Snapshot,
    SnapshotError,
    boot_id,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.states import GatewayData, GuardData, PlanData, ScanData, ThermalData
from gpuwarden.metrics.node import Component, Heard, Published

Data = TypeVar("Data", bound=BaseModel)


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    plan: Path = names.PLAN_FILE
    guard: Path = names.GUARD_STATE_FILE
    gateway: Path = names.GATEWAY_STATE_FILE
    thermal: Callable[[int], Path] = names.thermal_snapshot_file
    scan: Callable[[int], Path] = names.scan_snapshot_file


def read(places: Places) -> Published:
    """All of it. Never raises for what a file holds or lacks: that is what is said then."""
    heard: dict[Component, Heard] = {}
    plan = _plan(places.plan, heard)
    guard = _state(places.guard, GuardData, Component("guard"), heard)
    _state(places.gateway, GatewayData, Component("gateway"), heard)
    thermal, scans = {}, {}
    for card in plan.cards if plan else []:
        index = card.index
        state = _state(places.thermal(index), ThermalData, Component("thermal", str(index)), heard)
        if state is not None:
            thermal[index] = state
        scan = _state(places.scan(index), ScanData, Component("scan", str(index)), heard)
        if scan is not None:
            scans[index] = scan
    return Published(heard, plan, guard, thermal, scans)


def _plan(file: Path, heard: dict[Component, Heard]) -> PlanData | None:
    """The plan holds for as long as its boot."""
    snapshot = _read(file, PlanData)
    age = snapshot.age_seconds(boottime_nanoseconds()) if snapshot else None
    heard[Component("placement")] = Heard(age, snapshot is not None)
    return snapshot.data if snapshot else None


def _state(
    file: Path, kind: type[Data], component: Component, heard: dict[Component, Heard]
) -> Data | None:
    snapshot = _read(file, kind)
    now = boottime_nanoseconds()  # after the file: one written in between would be of the future
    is_fresh = snapshot is not None and snapshot.is_fresh(now)
    heard[component] = Heard(snapshot.age_seconds(now) if snapshot else None, is_fresh)
    return snapshot.data if snapshot is not None and is_fresh else None


def _read(file: Path, kind: type[Data]) -> Snapshot[Any] | None:
    try:
        snapshot = read_snapshot(file, kind)
    except SnapshotError:
        return None  # component_stale says it
    return snapshot if snapshot.boot_id == boot_id() else None
