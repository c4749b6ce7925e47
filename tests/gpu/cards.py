# SPDX-License-Identifier: Apache-2.0
"""The card that the trials read: the first of the node, over the guard's own sampler."""

import json
from pathlib import Path

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import Card, PlanData
from gpuwarden.nvml.card import CardIdentity
from gpuwarden.nvml.library import Library, Session, choose_library
from gpuwarden.thermal.sampler import Sampler


def first_card(library: Library) -> tuple[CardIdentity, str]:
    """Who it is, and the driver's version."""
    with Session(library) as session:
        cards = session.cards().cards
        assert cards, "this node has no card"
        return cards[0], session.driver_version() or "unknown"


def sampler_of(card: CardIdentity, folder: Path, library: Library | None = None) -> Sampler:
    """The guard's sampler for this card, with a plan that names it, in ``folder``."""
    return Sampler(0, write_plan(card, folder), library or choose_library())


def write_plan(card: CardIdentity, folder: Path) -> Path:
    """A plan of this card alone, ``plan.json`` in ``folder``."""
    entry = Card(
        index=0,
        uuid=card.uuid,
        name=card.name,
        pci_address=card.pci_address,
        minor=card.minor,
        numa_node=-1,
        present=True,
    )
    plan = PlanData(
        driver_version=None,
        simulated=False,
        cards=[entry],
        workers=[],
        housekeeping_cpus="",
    )
    file = folder / "plan.json"
    SnapshotWriter(file, "trial").publish(plan)
    return file


def write_json(path: Path, content: object) -> None:
    """One document, in lines that a person can compare."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
