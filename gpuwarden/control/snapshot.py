# SPDX-License-Identifier: Apache-2.0
"""State of one process, readable by all others at any time: an atomically renamed JSON file.

The writer renames a complete file over the old one, so a reader never sees half a state, and the
state outlives its writer. Age is counted on CLOCK_BOOTTIME, which a clock step can't bend and
suspend doesn't stop.
"""

import functools
import json
import logging
import os
import time
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

log = logging.getLogger(__name__)

Data = TypeVar("Data", bound=BaseModel)

VALID_MILLISECONDS = 3000  # design.md, "Snapshots": older than this is blind


class SnapshotError(Exception):
    """A snapshot is missing, torn or not ours; the text says which file and what was wrong."""


class Snapshot(BaseModel, Generic[Data]):
    """One published state with its origin and age."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    component: str
    boot_id: str
    pid: int
    sequence: int
    unix_microseconds: int
    boottime_nanoseconds: int
    valid_milliseconds: int
    data: Data

    def age_seconds(self, now_boottime_nanoseconds: int) -> float:
        """Seconds since it was written, by CLOCK_BOOTTIME."""
        return (now_boottime_nanoseconds - self.boottime_nanoseconds) / 1e9

    def is_fresh(self, now_boottime_nanoseconds: int) -> bool:
        """Whether it is of this boot and no older than it claims to be valid."""
        age_milliseconds = self.age_seconds(now_boottime_nanoseconds) * 1000
        return self.boot_id == boot_id() and 0 <= age_milliseconds <= self.valid_milliseconds


@functools.cache
def boot_id() -> str:
    """The kernel's identity of this boot; read once, so that it needs no descriptor later."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def boottime_nanoseconds() -> int:
    """Now, on the clock that snapshots are dated by."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SnapshotWriter:
    """Publishes one component's state to one file.

    :param valid_milliseconds: how long a reader may trust a state; the writer promises to publish
        again before that.
    """

    def __init__(
        self, path: Path, component: str, valid_milliseconds: int = VALID_MILLISECONDS
    ) -> None:
        self.path = path
        self.component = component
        self.valid_milliseconds = valid_milliseconds
        self._sequence = 0
        self._boot_id = boot_id()
        self._fails = False

    def publish(self, data: BaseModel) -> None:
        """Replace the published state. Raises OSError if the folder can't be written."""
        self._sequence += 1
        head = {
            "schema": 1,
            "component": self.component,
            "boot_id": self._boot_id,
            "pid": os.getpid(),
            "sequence": self._sequence,
            "unix_microseconds": time.time_ns() // 1000,
            "boottime_nanoseconds": boottime_nanoseconds(),
            "valid_milliseconds": self.valid_milliseconds,
        }
        body = f'{json.dumps(head)[:-1]}, "data": {data.model_dump_json()}}}\n'
        write_atomically(self.path, body.encode())

    def publish_or_say(self, data: BaseModel) -> None:
        """The same for whoever publishes again: what can't be written is said once, and outlived.

        Readers see the former state, whose age tells them that they know nothing.
        """
        try:
            self.publish(data)
        except OSError as error:
            if not self._fails:
                log.error("%s can't be written: %s", self.path, error.strerror)
            self._fails = True
        else:
            self._fails = False


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` in one step, so that a reader sees the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_snapshot(path: Path, data_type: type[Data]) -> Snapshot[Data]:
    """The state last published at ``path``, fresh or not: ask it for its age.

    :raises SnapshotError: no file, not JSON, or not of this schema.
    """
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict) or document.get("schema") != 1:
            raise SnapshotError(f"{path}: not a snapshot of schema 1")
        document["schema_version"] = document.pop("schema")
        # mypy can't follow a generic model subscripted by a variable; pydantic does at run time.
        return Snapshot[data_type].model_validate(document)  # type: ignore[valid-type]
    except FileNotFoundError:
        raise SnapshotError(f"{path}: not there (its writer has not started)") from None
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        raise SnapshotError(f"{path}: {str(error).splitlines()[0]}") from error
