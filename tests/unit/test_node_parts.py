# SPDX-License-Identifier: Apache-2.0
import struct
from pathlib import Path

import pytest

from tests.node import cache
from tests.node.channel import NodeError
from tests.node.crash import ENTRY, FLUSH, MAGIC, SUPERBLOCK, read_log
from tests.node.hardware import Card, Hardware, Memory
from tests.node.image import Downloads
from tests.node.levels import entries_of
from tests.node.vm import make_overlay

SECTOR = 512


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    return tmp_path


def test_an_entry_is_built_once(folder: Path) -> None:
    built: list[Path] = []
    for _ in range(2):
        cache.entry("kind", "group", "key", "", built.append)

    assert built == [folder / "kind" / "group" / "key"]


def test_an_entry_whose_build_failed_is_built_again_from_nothing(folder: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").touch()
        raise NodeError("no")

    with pytest.raises(NodeError):
        cache.entry("kind", "group", "key", "", fail)
    built = cache.entry("kind", "group", "key", "", lambda target: None)

    assert [path.name for path in built.iterdir()] == [cache.COMPLETE]


def test_a_new_key_removes_the_old_entries_with_their_variants_and_no_others(folder: Path) -> None:
    def nothing(target: Path) -> None:
        assert target.is_dir()

    old = [cache.entry("kind", "group", "old", variant, nothing) for variant in "ab"]
    other = cache.entry("kind", "other", "old", "", nothing)
    new = [cache.entry("kind", "group", "new", variant, nothing) for variant in "ab"]

    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (other, *new))


def test_an_old_entry_stays_while_a_node_runs_on_it(folder: Path) -> None:
    old = cache.entry("kind", "group", "old", "", lambda target: None)

    with cache.using(old):
        cache.entry("kind", "group", "new", "", lambda target: None)
        assert old.exists()
    cache.entry("kind", "group", "newer", "", lambda target: None)
    assert not old.exists()


def test_a_workspace_is_gone_after_its_use(folder: Path) -> None:
    with cache.workspace() as used:
        assert used.is_dir()

    assert list((folder / "run").iterdir()) == []


def test_keys_differ_where_parts_are_cut_differently() -> None:
    assert cache.digest(["ab", "c"]) != cache.digest(["a", "bc"])


def test_downloads_are_added_up_and_repeated_lines_are_not() -> None:
    downloads = Downloads()
    log = (
        (0.0, "I: running apt-get update..."),
        (1.5, "Fetched 9415 kB in 1s (10.4 MB/s)"),
        (2.0, "Need to get 38.0 MB of archives."),
        (4.0, "Fetched 38.0 MB in 0s (216 MB/s)"),
        (9.0, "Fetched 38.0 MB in 0s (216 MB/s)"),
    )
    for now, line in log:
        downloads.take(line, now)

    assert (downloads.bytes, downloads.seconds) == (47_415_000, 3.5)


def test_cards_have_the_addresses_of_their_buses() -> None:
    assert Card(0x40, 0).address == "0000:41:00.0"
    assert Card(0x1E, None).address == "0000:00:1e.0"


def test_hardware_that_does_not_divide_over_its_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="3 processors"):
        Hardware(processors=3, numa_nodes=2)


def test_memory_is_private_unless_a_snapshot_is_made(tmp_path: Path) -> None:
    assert Memory(tmp_path).backend(0, 8).endswith(f"{tmp_path}/memory0,share=off")
    assert Memory(tmp_path, shared=True).backend(1, 8).endswith(f"{tmp_path}/memory1,share=on")
    assert Memory().backend(0, 8) == "memory-backend-ram,id=memory0,size=8M"


def log_of(*entries: tuple[int, int, bytes]) -> bytes:
    data = SUPERBLOCK.pack(MAGIC, 1, len(entries), SECTOR).ljust(SECTOR, b"\0")
    for sector, flags, content in entries:
        data += ENTRY.pack(sector, len(content) // SECTOR, flags, 0).ljust(SECTOR, b"\0") + content
    return data


def test_a_log_of_writes_is_read_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(log_of((4, 0, b"a" * SECTOR), (0, FLUSH, b""), (8, 0, b"b" * 2 * SECTOR)))

    assert read_log(log) == [
        (4 * SECTOR, 0, b"a" * SECTOR),
        (0, FLUSH, b""),
        (8 * SECTOR, 0, b"b" * 2 * SECTOR),
    ]


def test_a_log_that_is_none_or_was_cut_off_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(struct.pack("<QQQI", 1, 1, 0, SECTOR))
    with pytest.raises(NodeError, match="no log of writes"):
        read_log(log)
    log.write_bytes(log_of((4, 0, b"a" * SECTOR))[:-1])
    with pytest.raises(NodeError, match="ends within"):
        read_log(log)
    log.write_bytes(b"")
    with pytest.raises(NodeError, match="ends within"):
        read_log(log)


def test_a_node_keeps_every_entry_that_its_disk_stands_on(tmp_path: Path) -> None:
    disk = tmp_path / "images" / "disk.raw"
    disk.parent.mkdir()
    disk.write_bytes(bytes(1 << 20))
    kind = "raw"
    for name in ("booted", "unstarted", "installed"):
        above = tmp_path / name / "disk.qcow2"
        above.parent.mkdir()
        make_overlay(disk, kind, above)
        disk, kind = above, "qcow2"
    for folder in tmp_path.iterdir():
        (folder / cache.COMPLETE).touch()
    with cache.using(*entries_of(disk)):
        assert all(cache.in_use(folder) for folder in tmp_path.iterdir())
    assert not any(cache.in_use(folder) for folder in tmp_path.iterdir())
