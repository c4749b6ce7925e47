# SPDX-License-Identifier: Apache-2.0
"""A sealed file: what was written or nothing, and nothing at all without its key."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.gateway.jobs import sealed
from gpuwarden.gateway.jobs.sealed import HEAD, SLOT_BYTES, SealError

KEY, OTHER_KEY = bytes(32), bytes(31) + b"\1"
QUESTION = "does Mrs. Miller have a fracture?"
META = {"question": QUESTION}
LENGTHS = [0, 1, sealed.STEP_BYTES - 1, sealed.STEP_BYTES, 2 * sealed.STEP_BYTES + 7]


def write(path: Path, content: bytes, name: str = "a.body") -> int:
    return sealed.write(path, KEY, name, META, memoryview(content))


def read(path: Path, key: bytes = KEY, name: str = "a.body") -> tuple[dict[str, object], bytes]:
    content = bytearray()

    def place(length: int) -> memoryview:
        content.extend(bytes(length))
        return memoryview(content)

    return sealed.read(path, key, name, place).meta, bytes(content)


@pytest.mark.parametrize("length", LENGTHS)
def test_what_was_written_is_read(tmp_path: Path, length: int) -> None:
    content = bytes(number % 251 for number in range(length))
    size = write(tmp_path / "a.body", content)
    assert read(tmp_path / "a.body") == (META, content)
    assert (tmp_path / "a.body").stat().st_size == size <= sealed.sealed_bytes(length)
    assert (tmp_path / "a.body").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["a.body"]


def test_nothing_of_the_content_is_on_disk(tmp_path: Path) -> None:
    marker = b"PatientName=Miller^Anna"
    write(tmp_path / "a.body", marker * 1000)
    stored = (tmp_path / "a.body").read_bytes()
    assert marker[:8] not in stored
    assert QUESTION[:8].encode() not in stored


def test_no_two_files_are_alike(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, b"the same")
    a, b = ((tmp_path / name).read_bytes()[HEAD.size :] for name in "ab")
    assert a[:SLOT_BYTES] != b[:SLOT_BYTES]
    assert a[SLOT_BYTES:] != b[SLOT_BYTES:]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_bit_and_any_cut_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("sealed") / "a.body"
    write(path, b"x" * 100)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    path.write_bytes(whole)
    with pytest.raises(SealError):
        read(path)


def test_another_key_or_another_name_reads_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.body", b"content")
    with pytest.raises(SealError):
        read(tmp_path / "a.body", key=OTHER_KEY)
    with pytest.raises(SealError):
        read(tmp_path / "a.body", name="b.body")


def test_a_destroyed_file_is_unreadable_even_for_who_kept_its_blocks(tmp_path: Path) -> None:
    write(tmp_path / "a.body", b"content" * 100)
    (tmp_path / "blocks").hardlink_to(tmp_path / "a.body")
    sealed.destroy(tmp_path / "a.body")
    assert not (tmp_path / "a.body").exists()
    assert (tmp_path / "blocks").read_bytes()[HEAD.size :][:SLOT_BYTES] == bytes(SLOT_BYTES)
    with pytest.raises(SealError):
        read(tmp_path / "blocks")
    sealed.destroy(tmp_path / "a.body")


def has_no_key(blocks: Path) -> bool:
    """Whether what a disk has kept of a file can't be read by anybody."""
    return blocks.read_bytes()[HEAD.size :][:SLOT_BYTES] == bytes(SLOT_BYTES)


def test_a_file_that_is_written_anew_is_unreadable_even_for_who_kept_its_blocks(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.body", b"first")
    (tmp_path / "blocks").hardlink_to(tmp_path / "a.body")
    write(tmp_path / "a.body", b"second")
    assert has_no_key(tmp_path / "blocks")
    assert read(tmp_path / "a.body") == (META, b"second")


def refused_once(monkeypatch: pytest.MonkeyPatch, temporary: Path, blocks: Path) -> None:
    """Have the disk fail the first time that a file is synced, and keep its blocks."""
    sync = os.fdatasync

    def refused(descriptor: int) -> None:
        if blocks.exists():
            sync(descriptor)
        else:
            blocks.hardlink_to(temporary)
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fdatasync", refused)


def test_a_file_that_could_not_be_written_is_unreadable_even_for_who_kept_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_once(monkeypatch, tmp_path / "a.body.tmp", tmp_path / "blocks")
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "a.body", b"content")
    assert has_no_key(tmp_path / "blocks")
    assert [file.name for file in tmp_path.iterdir()] == ["blocks"]


def test_a_file_whose_key_the_disk_refuses_to_destroy_keeps_no_name_from_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.body", b"first")
    destroy = sealed._destroy_key
    refusals: list[int] = []

    def refused(descriptor: int) -> None:
        if not refusals:
            refusals.append(descriptor)
            raise OSError(errno.EIO, "Input/output error")
        destroy(descriptor)

    monkeypatch.setattr(sealed, "_destroy_key", refused)
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "a.body", b"second")
    write(tmp_path / "a.body", b"third")
    assert read(tmp_path / "a.body") == (META, b"third")
    assert [file.name for file in tmp_path.iterdir()] == ["a.body"]


def test_a_full_disk_leaves_no_half_made_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    written: list[int] = []
    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr("os.pwrite", lambda descriptor, data, offset: written.append(len(data)))
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a.body", b"content")
    assert written == [0]  # more would want room again
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.body").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path / "a.body", b"content")
    assert [file.name for file in tmp_path.iterdir()] == ["a.body"]
