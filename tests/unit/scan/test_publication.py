# SPDX-License-Identifier: Apache-2.0
"""The snapshot, field by field as it is in the golden file."""

import json
from pathlib import Path

from gpuwarden.control.snapshot import SnapshotWriter, read_snapshot
from gpuwarden.control.states import ScanData
from gpuwarden.scan.classify import holder
from gpuwarden.scan.outcome import NotSeen, Seen
from gpuwarden.scan.publication import released_data, seen_data, status_line
from tests.unit.scan.evidences import CUSTOMS, GIB, LISTED, OPENED, STRANGER, WORKER

GOLDEN = Path(__file__).parents[1] / "data" / "scan_snapshot.json"
HOLDERS = (holder(WORKER, LISTED, CUSTOMS), holder(STRANGER, OPENED, CUSTOMS))
SEEN = Seen("GPU-0", HOLDERS, 3 * GIB, 40 * GIB, 0)


def test_a_snapshot_is_the_golden_one(tmp_path: Path) -> None:
    file = tmp_path / "0.json"
    SnapshotWriter(file, "scan@0").publish(seen_data(0, SEEN, 12))
    written = json.loads(file.read_text())
    golden = json.loads(GOLDEN.read_text())
    assert written.keys() == golden.keys()
    assert (written["component"], written["data"]) == (golden["component"], golden["data"])
    assert read_snapshot(GOLDEN, ScanData).data == seen_data(0, SEEN, 12)


def test_the_line_says_what_is_in_use_and_by_whom() -> None:
    assert status_line(seen_data(0, SEEN, 1), simulated=True) == (
        "SIMULATED GPU 0: 3.0 of 40.0 GiB in use, by 1 hidden, 1 ours"
    )
    doubtful = Seen("GPU-0", (), None, None, None, "permission denied")
    assert status_line(seen_data(1, doubtful, 1), simulated=False) == (
        "GPU 1: ? of ? GiB in use, by nobody; permission denied"
    )


def test_what_is_not_seen_is_not_claimed() -> None:
    blind = seen_data(0, NotSeen("GPU-0", "the card is lost"), 3)
    assert (blind.state, blind.holders, blind.vram_used_bytes) == ("blind", [], None)
    assert status_line(blind, simulated=False) == "GPU 0 blind: the card is lost"
    released = released_data(0, "GPU-0", "2026-09-21 14:13:20 UTC", 3)
    assert released.state == "released"
    assert status_line(released, simulated=False).endswith("released until 2026-09-21 14:13:20 UTC")
