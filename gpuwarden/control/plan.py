# SPDX-License-Identifier: Apache-2.0
"""The placement plan as the cards' own services read it."""

from pathlib import Path

from gpuwarden.control.snapshot import SnapshotError, boot_id, read_snapshot
from gpuwarden.control.states import Card, PlanData


def planned_card(plan_file: Path, gpu_index: int) -> Card:
    """The card with this index. Raises SnapshotError: no plan of this boot, or no such card."""
    snapshot = read_snapshot(plan_file, PlanData)
    if snapshot.boot_id != boot_id():
        raise SnapshotError(f"{plan_file}: of another boot")
    for card in snapshot.data.cards:
        if card.index == gpu_index:
            return card
    raise SnapshotError(f"{plan_file}: the plan has no GPU {gpu_index}")
