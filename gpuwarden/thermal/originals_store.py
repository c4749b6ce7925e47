# SPDX-License-Identifier: Apache-2.0
"""Keeps a card's record of originals in two places, so that one bad file costs nothing.

- ``/run/gpuwarden/thermal/<uuid>.originals.json``: written first. It needs no disk, so a full or
  broken one doesn't keep a card from being cooled, and it goes with the boot, as limits and locks
  do: whenever it is missing, the settings that it told of are most likely gone as well.
- ``/var/lib/gpuwarden/thermal/<uuid>.json``: written to a temporary file, fsync, rename, fsync of
  the folder.

A file that can't be believed is set aside under a new name for whoever wants to look into it; so is
that of another boot. A few of each are kept.
"""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden import names
from gpuwarden.thermal.originals import DamagedRecordError, Here, Record, decode, encode

DRIVER_MODULE = Path("/sys/module/nvidia")
KEPT_OF_EACH_KIND = 4
LARGEST_BYTES = 64 * 1024  # a record has half a kilobyte
SET_ASIDE, ARCHIVED = "set-aside", "archived"


def driver_load(module: Path = DRIVER_MODULE) -> str:
    """Which load of the driver this is: the kernel gives the module's folder a new number each
    time it is loaded and keeps it until it is unloaded. Empty where there is no such module."""
    try:
        return str(module.stat().st_ino)
    except OSError:
        return ""


class Disk:
    """The steps of keeping a file, one by one. Each raises OSError."""

    def read(self, path: Path) -> bytes:
        """At most a little more than a record can have."""
        with path.open("rb") as stream:
            return stream.read(LARGEST_BYTES + 1)

    def make_folder(self, folder: Path) -> None:
        """Make the folder where it is missing; for root alone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Write a file and have it on the disk."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def rename(self, old: Path, new: Path) -> None:
        """Put a file in another's place in one step."""
        old.rename(new)

    def remove(self, path: Path) -> None:
        """Remove a file that may be gone already."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Have what was renamed and removed in a folder on the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of the two copies."""

    disk: Path = names.THERMAL_ORIGINALS_DIRECTORY
    run: Path = names.RUN_DIRECTORY / "thermal"


@dataclass(slots=True)
class Loaded:
    """What was found.

    :ivar record: the best copy.
    :ivar notes: what can't be believed and what became of it, a sentence each.
    """

    record: Record | None = None
    notes: list[str] = field(default_factory=list)


class OriginalsStore:
    """The two copies of one card's record. Nothing here raises: what fails is told."""

    def __init__(self, uuid: str, places: Places | None = None, disk: Disk | None = None) -> None:
        places = places or Places()
        self._uuid = uuid
        self._disk = disk or Disk()
        stem = re.sub(r"[^A-Za-z0-9-]", "_", uuid)
        self.run_file = places.run / f"{stem}.originals.json"
        self.disk_file = places.disk / f"{stem}.json"

    def load(self, here: Here) -> Loaded:
        """The better of the two copies: of this life of the card, and saved last."""
        found = Loaded()
        for path in (self.run_file, self.disk_file):
            record = self._read(path, found.notes)
            if record is not None and _is_better(record, found.record, here):
                found.record = record
        return found

    def save(self, record: Record) -> str:
        """Keep the record; why the copy on the disk could not be written, empty if it was.

        The other copy's fault is told only beside that one: alone it does no harm.
        """
        content = encode(record)
        beside = self._keep(self.run_file, content)
        problem = self._keep(self.disk_file, content)
        if problem and beside:
            return f"{problem}; {beside}"
        return problem

    def archive(self) -> str:
        """Put the disk's copy away: what it tells of is no more. Why it failed, or empty."""
        try:
            self._put_away(self.disk_file, ARCHIVED)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self.disk_file} can't be archived: {error.strerror}"
        return ""

    def forget(self) -> str:
        """Remove both copies: nothing of ours is on the card. Why it failed, or empty."""
        try:
            for path in (self.disk_file, self.run_file):
                self._disk.remove(path)
            self._disk.sync_folder(self.disk_file.parent)
        except FileNotFoundError:
            return ""  # no folder, no copy
        except OSError as error:
            return f"{error.filename or self.disk_file} can't be removed: {error.strerror}"
        return ""

    def _read(self, path: Path, notes: list[str]) -> Record | None:
        try:
            content = self._disk.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            notes.append(f"{path} can't be read: {error.strerror}")
            return None
        try:
            if len(content) > LARGEST_BYTES:
                raise DamagedRecordError(f"it is larger than {LARGEST_BYTES} bytes")
            return decode(content, self._uuid)
        except DamagedRecordError as error:
            notes.append(f"{path} is no record of this card: {error}; {self._set_aside(path)}")
            return None

    def _set_aside(self, path: Path) -> str:
        try:
            return f"it is kept as {self._put_away(path, SET_ASIDE).name}"
        except OSError as error:
            return f"it can't be set aside: {error.strerror}"

    def _put_away(self, path: Path, kind: str) -> Path:
        new = path.with_name(f"{path.stem}.{kind}-{time.time_ns() // 1000}.json")
        self._disk.rename(path, new)
        for old in sorted(path.parent.glob(f"{path.stem}.{kind}-*.json"))[:-KEPT_OF_EACH_KIND]:
            self._disk.remove(old)
        self._disk.sync_folder(path.parent)
        return new

    def _keep(self, path: Path, content: bytes) -> str:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            self._disk.make_folder(path.parent)
            try:
                self._disk.write(temporary, content)
                self._disk.rename(temporary, path)
            except OSError:
                temporary.unlink(missing_ok=True)  # half a file would go on filling the disk
                raise
            self._disk.sync_folder(path.parent)
        except OSError as error:
            return f"{path} can't be written: {error.strerror}"
        return ""


def _is_better(record: Record, other: Record | None, here: Here) -> bool:
    if other is None:
        return True
    return (here.is_life_of(record), record.sequence) > (here.is_life_of(other), other.sequence)
