# SPDX-License-Identifier: Apache-2.0
"""The cards of this node: from the driver, or as last known if it hangs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden.control.snapshot import boot_id
from gpuwarden.control.states import Card
from gpuwarden.cpulist import parse_cpu_list
from gpuwarden.nvml.card import CardIdentity
from gpuwarden.nvml.library import choose_library
from gpuwarden.placement.cards import CardRecord, fix_indices, read_record, write_record
from gpuwarden.placement.enumerate import EnumerationError, Listing
from gpuwarden.placement.locate import locate
from gpuwarden.placement.plan import Driver
from gpuwarden.topology.model import Topology
from gpuwarden.topology.sysfs import pci_numa_node


@dataclass
class Findings:
    """The cards and the driver as found, what is doubtful about them, and what was decided.

    :ivar record: what is to be kept of it; None where the driver told nothing.
    """

    cards: list[Card]
    driver: Driver
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    record: CardRecord | None = None


def find_cards(
    cards_file: Path, sysfs: Path, machine: Topology, ask: Callable[[], Listing]
) -> Findings:
    """The cards with their indices; changes nothing.

    :raises ValueError: the kernel's answer to a card's node is no number.
    :raises OSError: it can't be read.
    """
    library = choose_library()
    warnings = [library.note] if library.note else []
    known = _known_cards(cards_file, library.simulated, warnings)
    known_cards = known.cards if known else []
    try:
        listing = ask()
    except EnumerationError as error:
        driver = Driver(None, library.simulated, str(error))
        if error.hung and known_cards:
            warnings.append(f"{error}; the cards are taken as last known")
            return Findings(known_cards, driver, warnings)
        gone = [card.model_copy(update={"present": False}) for card in known_cards]
        return Findings(gone, driver, warnings)
    warnings += listing.faults
    found = [_located(card, sysfs, machine) for card in listing.cards]
    same_boot = known is not None and known.boot_id == boot_id()
    cards = fix_indices([card for card, _ in found], known_cards, same_boot=same_boot)
    said = {card.uuid: note for card, note in found}
    notes = [f"GPU {c.index}: {said[c.uuid]}" for c in cards if c.present and said.get(c.uuid)]
    record = CardRecord(boot_id=boot_id(), simulated=library.simulated, cards=cards)
    driver = Driver(listing.driver_version, library.simulated)
    return Findings(cards, driver, warnings, notes, record)


def remember(findings: Findings, cards_file: Path) -> None:
    """Keep the cards for a boot at which the driver hangs; that it fails is a warning."""
    if findings.record is None:
        return
    try:
        write_record(cards_file, findings.record)
    except OSError as error:
        findings.warnings.append(f"{cards_file} can't be written: {error.strerror}")


def _known_cards(path: Path, simulated: bool, warnings: list[str]) -> CardRecord | None:
    try:
        record = read_record(path)
    except ValueError as error:
        warnings.append(f"the record of the cards can't be read and is begun anew: {error}")
        return None
    # The simulator's cards must not haunt a node that got a real driver, nor the other way round.
    return record if record and record.simulated == simulated else None


def _located(card: CardIdentity, sysfs: Path, machine: Topology) -> tuple[Card, str]:
    place = locate(pci_numa_node(card.pci_address, sysfs), parse_cpu_list(card.near_cpus), machine)
    entry = Card(
        index=card.index,
        uuid=card.uuid,
        name=card.name,
        pci_address=card.pci_address,
        minor=card.minor,
        numa_node=place.node,
        present=True,
        numa_node_from=place.source,
        mig_uuids=list(card.mig_uuids),
    )
    return entry, place.note
