# SPDX-License-Identifier: Apache-2.0
"""A sealed file: what was written or nothing, and nothing at all without its key."""

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


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.body").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path / "a.body", b"content")
    assert [file.name for file in tmp_path.iterdir()] == ["a.body"]
