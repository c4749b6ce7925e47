# SPDX-License-Identifier: Apache-2.0
"""Every way a disk can look after a power cut: QEMU records its writes, the host replays them.

A logged disk is a small ext4 disk behind QEMU's ``blklogwrites``.  Each flush (and each forced
write) the guest made is a point at which the power may have gone; the disk as it was then is put
together on the host, its journal replayed by e2fsck, and its files read with debugfs: no mount, no
boot.
"""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.node import cache
from tests.node.channel import NodeError, check_output
from tests.node.hardware import LOGGED_DISK_BUS
from tests.node.vm import Node

SERIAL = "logged"
DEVICE = f"/dev/disk/by-id/virtio-{SERIAL}"
ATTACH_SECONDS = 30.0

# The format of Linux's dm-log-writes, which blklogwrites writes (little-endian).
MAGIC = 0x6A736677736872
SUPERBLOCK = struct.Struct("<QQQI")  # magic, version, entries, sector size
ENTRY = struct.Struct("<QQQQ")  # first sector, sectors, flags, length of a mark
FLUSH, FORCED, DISCARD = 1, 2, 4
E2FSCK_CLEAN = (0, 1)  # without errors, or with its journal replayed and errors corrected


@dataclass(frozen=True)
class CrashPoint:
    """A point at which the power may have gone; ``image`` is valid until the next is asked for."""

    number: int
    image: Path

    def read(self, path: str) -> bytes | None:
        """A file's content, by its path on the disk; None where there is no such file."""
        if Path(path).name not in self.names(str(Path(path).parent)):
            return None
        argv = ["debugfs", "-R", f'cat "{path}"', str(self.image)]
        return subprocess.run(argv, capture_output=True, check=True).stdout

    def names(self, directory: str = "/") -> set[str]:
        """The names in a directory of the disk; empty where there is no such directory."""
        listing = check_output("debugfs", "-R", f'ls -p "{directory}"', str(self.image))
        names = {line.split("/")[5] for line in listing.splitlines() if line.startswith("/")}
        return names - {".", "..", ""}


class LoggedDisk:
    """A disk of a running node, found there as ``DEVICE``; not mounted, empty, ext4."""

    def __init__(self, node: Node, mebibytes: int = 64):
        self.node = node
        self.disk = node.folder / "logged.raw"
        self.pristine = node.folder / "logged-pristine.raw"
        self.log = node.folder / "logged.log"
        settled = "lazy_itable_init=0,lazy_journal_init=0"
        check_output(
            *("mke2fs", "-q", "-t", "ext4", "-E", settled, str(self.disk), f"{mebibytes}M")
        )
        shutil.copyfile(self.disk, self.pristine)
        self.log.touch()
        self._attach()

    def _attach(self) -> None:
        """Plugs the disk in; returns when the node has it under its name."""
        disk = {"driver": "file", "filename": str(self.disk)}
        log = {"driver": "file", "filename": str(self.log)}
        self.node.monitor.command(
            "blockdev-add",
            **{
                "driver": "blklogwrites",
                "node-name": SERIAL,
                "file": {"driver": "raw", "file": disk},
                "log": log,
                "log-sector-size": 512,
            },
        )
        self.node.monitor.command(
            "device_add", driver="virtio-blk-pci", drive=SERIAL, serial=SERIAL, bus=LOGGED_DISK_BUS
        )
        self.node.wait_until(f"ls {DEVICE}", f"^{DEVICE}$", ATTACH_SECONDS)

    def crash_points(self) -> Iterator[CrashPoint]:
        """Each flush of the guest, in order, and the end.  Cut the node's power before.

        Raises ``NodeError`` where e2fsck finds more than a journal to replay: then the file system
        itself is broken, not what was written to it.
        """
        state = self.node.folder / "logged-replayed.raw"
        shutil.copyfile(self.pristine, state)
        entries = read_log(self.log)
        with state.open("r+b") as file:
            for number, (offset_bytes, flags, data) in enumerate(entries):
                file.seek(offset_bytes)
                file.write(data)
                if flags & (FLUSH | FORCED):
                    file.flush()
                    yield crash_point(number, state)
        yield crash_point(len(entries), state)


def crash_point(number: int, state: Path) -> CrashPoint:
    """The disk ``state`` as it is after the power came back: a copy, its journal replayed."""
    work = state.with_name("crash-point.raw")
    cache.copy_sparse(state, work)
    argv = ["e2fsck", "-p", "-f", str(work)]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    if checked.returncode not in E2FSCK_CLEAN:
        raise NodeError(f"e2fsck after entry {number}: {checked.stdout}{checked.stderr}")
    return CrashPoint(number, work)


def read_log(path: Path) -> list[tuple[int, int, bytes]]:
    """The log's entries in the order they were made: byte offset, flags, data.

    Raises ``NodeError`` when it is no such log, or was cut off in the middle of an entry.
    """
    with path.open("rb") as log:
        magic, _, count, sector_bytes = unpack(SUPERBLOCK, log, path)
        if magic != MAGIC:
            raise NodeError(f"{path} is no log of writes: it begins with {magic:#x}")
        entries: list[tuple[int, int, bytes]] = []
        position = sector_bytes
        for _ in range(count):
            log.seek(position)
            sector, sectors, flags, _ = unpack(ENTRY, log, path)
            position += sector_bytes
            data = b""
            if not flags & DISCARD:
                log.seek(position)
                data = log.read(sectors * sector_bytes)
                position += sectors * sector_bytes
                if len(data) != sectors * sector_bytes:
                    raise NodeError(f"{path} ends within its entry {len(entries)}")
            entries.append((sector * sector_bytes, flags, data))
    return entries


def unpack(layout: struct.Struct, log: BinaryIO, path: Path) -> tuple[int, ...]:
    """The next record of the log."""
    data = log.read(layout.size)
    if len(data) != layout.size:
        raise NodeError(f"{path} ends within a record")
    return layout.unpack(data)
