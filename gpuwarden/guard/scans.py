# SPDX-License-Identifier: Apache-2.0
"""What the scanners say of each card, as far as it can be believed."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gpuwarden import names
from gpuwarden.control.snapshot import SnapshotError, boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import Card, Holder, ScanData


@dataclass(frozen=True, slots=True)
class CardScan:
    """One scan of a card, fresh when it was read.

    :ivar scanner_pid: who scans: its count of scans begins anew with each life.
    """

    scanner_pid: int
    data: ScanData

    @property
    def identity(self) -> tuple[int, int]:
        """The same for no other scan of this card."""
        return self.scanner_pid, self.data.scans

    @property
    def is_complete(self) -> bool:
        """Whether what is missing in it is missing on the card."""
        return self.data.state == "scanning" and not self.data.problem

    def holder(self, pid: int) -> Holder | None:
        """The process of that number, if it holds memory of the card."""
        return next((each for each in self.data.holders if each.pid == pid), None)


@dataclass(frozen=True, slots=True)
class Scans:
    """The scans of all cards.

    :ivar known: by card; a card whose scan can't be believed is not in it.
    :ivar doubts: by card, why its holders are unknown; empty where they are known.
    """

    known: dict[int, CardScan] = field(default_factory=dict)
    doubts: dict[int, str] = field(default_factory=dict)


def read_scans(cards: Iterable[Card]) -> Scans:
    """What the scanners published last."""
    scans = Scans()
    for card in cards:
        scan, doubt = _read(card)
        scans.doubts[card.index] = doubt
        if scan is not None:
            scans.known[card.index] = scan
    return scans


def _read(card: Card) -> tuple[CardScan | None, str]:
    unit = names.scan_unit(card.index)
    try:
        snapshot = read_snapshot(names.scan_snapshot_file(card.index), ScanData)
    except SnapshotError:
        return None, f"it is not scanned (systemctl status {unit})"
    if not snapshot.is_fresh(boottime_nanoseconds()):
        return None, f"its scan is out of date (systemctl status {unit})"
    data = snapshot.data
    if data.gpu_uuid != card.uuid:
        return None, f"its scan is of another card, {data.gpu_uuid}"
    if data.state == "released":
        return None, data.problem or "the card is released"
    if data.state == "blind":
        return None, data.problem or "the driver does not answer"
    return CardScan(snapshot.pid, data), data.problem
