# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.config import Configuration
from gpuwarden.config.health import HealthSettings
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import ScanData
from gpuwarden.guard.checkup import AcceptedHealth, soft_limit_bytes
from gpuwarden.guard.kernel import Memory, memory
from gpuwarden.guard.scans import read_scans
from tests.machines import card

UUID = card(0).uuid
GROUP = "/medgemma.slice/medgemma-worker@0.service"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(names, "scan_snapshot_file", lambda gpu: tmp_path / f"{gpu}.json")
    monkeypatch.setattr(names, "ACCEPTED_CONFIGURATION_FILE", tmp_path / "configuration.json")
    return tmp_path


def publish(folder: Path, valid_milliseconds: int = 60_000, **changes: Any) -> None:
    fields: dict[str, Any] = {"gpu_index": 0, "gpu_uuid": UUID, "state": "scanning", "scans": 7}
    writer = SnapshotWriter(folder / "0.json", "scan", valid_milliseconds)
    writer.publish(ScanData(**(fields | changes)))


def test_a_fresh_and_complete_scan_is_known_and_leaves_no_doubt(folder: Path) -> None:
    publish(folder)
    scans = read_scans([card(0)])
    assert scans.doubts == {0: ""}
    assert scans.known[0].identity[1] == 7
    assert scans.known[0].is_complete


def test_a_scan_with_a_problem_shows_whom_it_saw_and_says_why_that_may_not_be_all(
    folder: Path,
) -> None:
    publish(folder, problem="no permission")
    scans = read_scans([card(0)])
    assert scans.doubts == {0: "no permission"}
    assert not scans.known[0].is_complete


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"valid_milliseconds": 0}, "out of date"),
        ({"state": "blind", "problem": "NVML hangs"}, "NVML hangs"),
        ({"state": "blind"}, "does not answer"),
        ({"state": "released"}, "released"),
        ({"gpu_uuid": "GPU-another"}, "of another card"),
    ],
)
def test_a_scan_that_proves_nothing_is_not_known(
    folder: Path, changes: dict[str, Any], why: str
) -> None:
    publish(folder, **changes)
    scans = read_scans([card(0)])
    assert scans.known == {}
    assert why in scans.doubts[0]


def test_a_card_without_a_scan_and_a_torn_one_are_in_doubt(folder: Path) -> None:
    (folder / "0.json").write_text('{"schema": 1, "comp')
    scans = read_scans([card(0), card(1)])
    assert scans.known == {}
    assert all("is not scanned" in why for why in scans.doubts.values())


# --- main memory


def test_pages_of_files_are_no_memory_that_a_worker_holds(tmp_path: Path) -> None:
    group = tmp_path / GROUP.lstrip("/")
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    (group / "memory.stat").write_text("anon 300\nfile 700\nactive_file 400\ninactive_file 250\n")
    (group / "memory.high").write_text("max\n")
    (group / "memory.max").write_text("2000\n")
    assert memory(GROUP, tmp_path) == Memory(350, None, 2000)


@pytest.mark.parametrize("group", ["", "/gone"])
def test_memory_of_a_group_that_is_not_there_is_unknown(tmp_path: Path, group: str) -> None:
    assert memory(group, tmp_path) == Memory()


@pytest.mark.parametrize(
    ("known", "share", "limit"),
    [
        (Memory(1, 500, 1000), 0.9, 500),
        (Memory(1, None, 1000), 0.9, 900),
        (Memory(1, None, 1000), 1.0, None),
        (Memory(1, None, None), 0.9, None),
    ],
)
def test_the_units_own_soft_limit_counts_before_the_configured_share(
    known: Memory, share: float, limit: int | None
) -> None:
    assert soft_limit_bytes(known, HealthSettings(memory_soft_limit=share)) == limit


# --- settings


def test_what_was_accepted_last_counts_from_the_next_look_on(folder: Path) -> None:
    settings = AcceptedHealth()
    assert settings() == HealthSettings()
    changed = Configuration(health=HealthSettings(stuck_grace_seconds=5))
    names.ACCEPTED_CONFIGURATION_FILE.write_text(changed.model_dump_json())
    assert settings().stuck_grace_seconds == 5
    names.ACCEPTED_CONFIGURATION_FILE.unlink()  # the service stops
    assert settings().stuck_grace_seconds == 5
