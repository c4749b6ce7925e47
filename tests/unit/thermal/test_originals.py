# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.thermal.originals import (
    DamagedRecordError,
    Here,
    Record,
    decode,
    encode,
    is_rounded,
    judge,
)
from gpuwarden.thermal.originals_store import Disk, OriginalsStore, Places, driver_load
from gpuwarden.thermal.privilege import lacks_administration

HERE = Here("GPU-1", "boot", "load")
RECORD = Record(
    uuid="GPU-1",
    boot_id="boot",
    driver_load="load",
    sequence=7,
    original_milliwatts=350_000,
    ours_milliwatts=300_000,
    next_milliwatts=250_000,
    sm_lock_mhz=900,
)
milliwatts = st.none() | st.integers(1, 1_000_000)
records = st.builds(
    Record,
    uuid=st.just("GPU-1"),
    boot_id=st.sampled_from(["boot", "another"]),
    driver_load=st.sampled_from(["", "load", "another"]),
    sequence=st.integers(0, 10**9),
    original_milliwatts=milliwatts,
    ours_milliwatts=milliwatts,
    next_milliwatts=milliwatts,
    sm_lock_mhz=st.none() | st.integers(1, 3000),
    memory_lock_mhz=st.none() | st.integers(1, 3000),
)


@given(records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert decode(encode(record), "GPU-1") == record


def test_a_record_is_for_people_to_read_too() -> None:
    document = json.loads(encode(RECORD))
    assert document["schema"] == 1
    assert document["original_milliwatts"] == 350_000
    assert list(document)[-1] == "checksum"


@given(st.data())
def test_a_record_that_was_changed_in_any_way_is_refused(data: st.DataObject) -> None:
    content = bytearray(encode(RECORD))
    at = data.draw(st.integers(0, len(content) - 2))  # the last one is a line feed
    kind = data.draw(st.sampled_from(["cut", "bit"]))
    changed = bytes(content[:at]) if kind == "cut" else None
    if changed is None:
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        changed = bytes(content)
    try:
        found = decode(changed, "GPU-1")
    except DamagedRecordError:
        return
    assert found == RECORD  # white space, or a letter of a number's spelling


def signed(**changes: Any) -> bytes:
    """A record with a checksum that fits, whatever is in it."""
    body = json.loads(encode(RECORD)) | changes
    del body["checksum"]
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return json.dumps(body | {"checksum": hashlib.sha256(canonical.encode()).hexdigest()}).encode()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\x00", "not JSON"),
        (b"[1]", "not a record"),
        (signed(schema=2), "schema is 2, not 1"),
        (signed(uuid="GPU-2"), "of another card (GPU-2)"),
        (signed(original_milliwatts="350"), "original_milliwatts"),
        (signed(original_milliwatts=-1), "original_milliwatts"),
        (signed(something=1), "something"),
        (encode(RECORD).replace(b"350000", b"450000"), "checksum"),
    ],
)
def test_what_is_no_record_of_this_card_says_why(content: bytes, complaint: str) -> None:
    with pytest.raises(DamagedRecordError) as caught:
        decode(content, "GPU-1")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("live", [300_000, 250_000, 251_900])
def test_a_limit_of_ours_leaves_the_original_in_the_record(live: int) -> None:
    verdict = judge(RECORD, live, HERE, damaged=False)
    assert verdict.continues
    assert verdict.record.original_milliwatts == 350_000
    assert verdict.record.ours_milliwatts == live
    assert verdict.record.next_milliwatts is None
    assert verdict.record.sm_lock_mhz == 900


@pytest.mark.parametrize("live", [301_000, 400_000, 100_000, 252_600])
def test_another_limit_is_the_new_original(live: int) -> None:
    verdict = judge(RECORD, live, HERE, damaged=False)
    assert not verdict.continues
    assert verdict.replaced_milliwatts == 350_000
    assert verdict.record.original_milliwatts == live
    assert (verdict.record.ours_milliwatts, verdict.record.next_milliwatts) == (None, None)
    assert verdict.record.sm_lock_mhz == 900


def test_the_original_itself_is_no_news() -> None:
    verdict = judge(RECORD, 350_000, HERE, damaged=False)
    assert verdict.replaced_milliwatts is None
    assert verdict.record.ours_milliwatts is None


@pytest.mark.parametrize("here", [Here("GPU-1", "later", "load"), Here("GPU-1", "boot", "later")])
def test_a_record_of_another_life_counts_for_nothing(here: Here) -> None:
    verdict = judge(RECORD, 300_000, here, damaged=False)
    assert verdict.is_outdated
    assert verdict.record.original_milliwatts == 300_000
    assert verdict.record.sm_lock_mhz is None
    assert (verdict.record.boot_id, verdict.record.driver_load) == (here.boot_id, here.driver_load)
    assert verdict.record.sequence == RECORD.sequence


def test_a_load_that_cannot_be_seen_counts_as_the_same() -> None:
    unseen = judge(RECORD, 300_000, Here("GPU-1", "boot", ""), damaged=False)
    assert unseen.continues
    assert unseen.record.driver_load == "load"
    before = RECORD.model_copy(update={"driver_load": ""})
    assert judge(before, 300_000, HERE, damaged=False).record.driver_load == "load"


@given(records, milliwatts, st.booleans())
def test_nothing_is_ever_raised_above_what_the_card_has_unless_that_is_ours(
    record: Record, live: int | None, damaged: bool
) -> None:
    verdict = judge(record, live, HERE, damaged)
    original = verdict.record.original_milliwatts
    if live is not None and not (record.names(live) and HERE.is_life_of(record)):
        assert original == live
    assert judge(None, live, HERE, damaged).record.original_milliwatts == live
    assert judge(None, live, HERE, damaged).is_doubtful == damaged


def test_rounding_is_a_hundredth_or_two_watts() -> None:
    assert is_rounded(100_000, 102_000)
    assert not is_rounded(100_000, 102_001)
    assert is_rounded(700_000, 693_000)
    assert not is_rounded(700_000, 692_999)


class Recording(Disk):
    """The real disk, and the order in which it was used."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def write(self, path: Path, content: bytes) -> None:
        self.steps.append(("write", path.parent.name))
        super().write(path, content)

    def rename(self, old: Path, new: Path) -> None:
        assert old.parent == new.parent
        self.steps.append(("rename", new.parent.name))
        super().rename(old, new)

    def sync_folder(self, folder: Path) -> None:
        self.steps.append(("sync", folder.name))
        super().sync_folder(folder)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "disk", tmp_path / "run")


def test_a_copy_is_written_synced_renamed_and_its_folder_synced(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Recording()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        disk.steps.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    store = OriginalsStore("GPU-1", places, disk)
    assert store.save(RECORD) == ""
    assert disk.steps == [
        *[("write", "run"), ("fsync", ".GPU-1.originals.json.tmp"), ("rename", "run")],
        *[("sync", "run"), ("fsync", "run")],
        *[("write", "disk"), ("fsync", ".GPU-1.json.tmp"), ("rename", "disk")],
        *[("sync", "disk"), ("fsync", "disk")],
    ]
    assert places.disk.stat().st_mode & 0o777 == 0o700


def test_the_copy_that_was_saved_last_holds(places: Places) -> None:
    store = OriginalsStore("GPU-1", places)
    store.save(RECORD)
    later = RECORD.model_copy(update={"sequence": 8, "ours_milliwatts": 200_000})
    for newer, older in (
        (store.disk_file, store.run_file),
        (store.run_file, store.disk_file),
    ):
        newer.write_bytes(encode(later))
        older.write_bytes(encode(RECORD))
        assert store.load(HERE).record == later


def test_a_copy_of_this_life_holds_against_a_later_one_of_another(places: Places) -> None:
    store = OriginalsStore("GPU-1", places)
    store.save(RECORD)
    other = RECORD.model_copy(update={"sequence": 99, "boot_id": "another"})
    store.disk_file.write_bytes(encode(other))
    assert store.load(HERE).record == RECORD


def test_no_copy_is_nothing_to_tell(places: Places) -> None:
    store = OriginalsStore("GPU-1", places)
    found = store.load(HERE)
    assert (found.record, found.notes) == (None, [])
    assert store.forget() == store.archive() == ""


def test_a_uuid_is_no_path(places: Places) -> None:
    store = OriginalsStore("MIG-GPU-1/../../2", places)
    assert store.disk_file.parent == places.disk
    assert store.disk_file.name == "MIG-GPU-1_______2.json"


def test_a_link_in_the_temporary_files_place_is_not_followed(
    places: Places, tmp_path: Path
) -> None:
    places.disk.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (places.disk / ".GPU-1.json.tmp").symlink_to(victim)
    store = OriginalsStore("GPU-1", places)
    assert "can't be written" in store.save(RECORD)
    assert victim.read_text() == "mine"
    assert store.save(RECORD) == "", "the link is gone"


def test_a_folder_in_the_records_place_is_told_and_survived(places: Places) -> None:
    store = OriginalsStore("GPU-1", places)
    store.disk_file.mkdir(parents=True)
    found = store.load(HERE)
    assert "can't be read: Is a directory" in found.notes[0]
    assert "can't be written" in store.save(RECORD)
    assert store.load(HERE).record == RECORD
    assert "can't be removed" in store.forget()


def test_a_load_of_the_driver_is_known_by_its_module(tmp_path: Path) -> None:
    module = tmp_path / "nvidia"
    assert driver_load(module) == ""
    module.mkdir()
    assert driver_load(module) == driver_load(module) != ""


def test_the_capability_is_read_from_the_kernel(tmp_path: Path) -> None:
    status = tmp_path / "status"
    assert lacks_administration(status) == ""
    status.write_text("Name:\tpython3\nCapEff:\t0000000000200000\n")
    assert lacks_administration(status) == ""
    status.write_text("Name:\tpython3\nCapEff:\t000001ffffdfffff\n")
    assert "CAP_SYS_ADMIN" in lacks_administration(status)
