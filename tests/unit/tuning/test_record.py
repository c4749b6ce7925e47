# SPDX-License-Identifier: Apache-2.0
"""The record of the host's former profile on the disk."""

import os
from pathlib import Path

import pytest

from gpuwarden.tuning.decision import Record
from gpuwarden.tuning.record import RecordError, drop_record, keep_record, read_record

RECORD = Record(boot_id="b", started_tuned=True, former_profile="balanced", ours=("gpuwarden-day",))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "former.json"


def test_a_record_is_kept_and_dropped(file: Path) -> None:
    assert read_record(file) is None
    keep_record(RECORD, file)
    assert read_record(file) == RECORD
    drop_record(file)
    drop_record(file)
    assert read_record(file) is None


def test_a_power_cut_leaves_the_old_record_or_the_new_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def say_fsync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def say_rename(self: Path, target: Path) -> Path:
        steps.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", say_fsync)
    monkeypatch.setattr(Path, "rename", say_rename)
    keep_record(RECORD, file)
    folder = f"sync {file.parent.name}"
    assert steps == ["sync .former.json.new", "rename to former.json", folder]


def test_a_record_that_can_not_be_read_says_what_to_do(file: Path) -> None:
    file.write_text('{"boot_id": 3}')
    with pytest.raises(RecordError, match="set the profile that you want with `tuned-adm profile`"):
        read_record(file)


def test_without_a_record_nothing_may_be_changed(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="so the host is left as it is"):
        keep_record(RECORD, tmp_path / "missing" / "former.json")
