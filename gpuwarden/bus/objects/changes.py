# SPDX-License-Identifier: Apache-2.0
"""What happened between two states of the service, as far as signals tell it. Pure."""

from dataclasses import dataclass

from gpuwarden.control.states import GuardData
from gpuwarden.values import ThermalState, WorkerState


@dataclass(frozen=True, slots=True)
class WorkerChange:
    """A worker went from one state to another."""

    number: int
    old: WorkerState
    new: WorkerState
    reason: str


@dataclass(frozen=True, slots=True)
class ThermalChange:
    """A card went from one thermal state to another."""

    gpu_index: int
    old: ThermalState
    new: ThermalState
    celsius: float | None
    reason: str


def worker_changes(old: GuardData, new: GuardData) -> list[WorkerChange]:
    """State changes of the workers that are in both."""
    before = {worker.number: worker.state for worker in old.workers}
    return [
        WorkerChange(worker.number, before[worker.number], worker.state, worker.reason)
        for worker in new.workers
        if before.get(worker.number, worker.state) != worker.state
    ]


def thermal_changes(old: GuardData, new: GuardData) -> list[ThermalChange]:
    """Thermal state changes of the cards that are in both."""
    before = {card.index: card.state for card in old.gpus}
    return [
        ThermalChange(
            card.index, before[card.index], card.state, card.temperature_celsius, card.reason
        )
        for card in new.gpus
        if before.get(card.index, card.state) != card.state
    ]


def changed_values(
    old: dict[str, object], new: dict[str, object], names: frozenset[str]
) -> dict[str, object]:
    """The entries of ``new`` among ``names`` that differ; NaN is equal to NaN here."""
    return {
        name: value
        for name, value in new.items()
        if name in names and not _same(old.get(name), value)
    }


def _same(old: object, new: object) -> bool:
    both_nan = isinstance(old, float) and isinstance(new, float) and old != old and new != new  # noqa: PLR0124  NaN alone differs from itself
    return both_nan or old == new
