# SPDX-License-Identifier: Apache-2.0
"""Recordings as files, in the state folder or wherever they are wanted.

A recording is written anew after each window, whole and synced, so a power cut costs one window.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gpuwarden.baseline.recording import SCHEMA, Recording
from gpuwarden.names import BASELINES_DIRECTORY

SUFFIX = ".json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SIZE_LIMIT_BYTES = 16 * 2**20  # a week of windows


class StoreError(Exception):
    """A recording can't be had; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the folder has under a name: a recording, or why it can't be read."""

    name: str
    recording: Recording | None
    problem: str = ""


def checked_name(name: str) -> str:
    """The name. Raises StoreError: no file could have it, or it would be a path."""
    if not NAME.fullmatch(name):
        raise StoreError(
            f"a recording's name has 1 to 64 letters, digits, dots, dashes and underscores, and "
            f"no dash or dot first; found {name!r}"
        )
    return name


def file_of(name: str, folder: Path = BASELINES_DIRECTORY) -> Path:
    """Where a recording of that name lies; a path (with a slash) is its own. Raises StoreError."""
    if "/" in name:
        return Path(name)
    return folder / f"{checked_name(name)}{SUFFIX}"


def save(recording: Recording, path: Path, *, is_first: bool) -> None:
    """Write it in one step, and have it on the disk.

    :param is_first: refuse a file that is there.
    :raises StoreError: it is there, or can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if is_first:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(recording.model_dump_json(indent=1) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise StoreError(f"{path} is there already: take another name, or delete it") from None
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path} can't be written: {error.strerror} (sudo, or --to)") from error


def load(path: Path) -> Recording:
    """The recording in a file. Raises StoreError."""
    try:
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise StoreError(f"{path} is too large for a recording")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict) or document.get("schema_version") != SCHEMA:
            raise StoreError(f"{path} is no recording of schema {SCHEMA}")
        return Recording.model_validate(document)
    except FileNotFoundError:
        raise StoreError(f"{path} is not there (gpuwarden baseline list)") from None
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        text = f"{path} is damaged: {str(error).splitlines()[0]}"
        raise StoreError(text) from error


def kept(folder: Path = BASELINES_DIRECTORY) -> list[Kept]:
    """All that is in the folder, the oldest first. Raises StoreError."""
    try:
        files = sorted(folder.glob(f"[!.]*{SUFFIX}"), key=lambda path: path.name)
    except OSError as error:
        raise StoreError(f"{folder} can't be read: {error.strerror}") from error
    found = [_kept(path) for path in files]
    return sorted(found, key=lambda each: _started(each.recording))


def _kept(path: Path) -> Kept:
    try:
        return Kept(path.stem, load(path))
    except StoreError as error:
        return Kept(path.stem, None, str(error))


def _started(recording: Recording | None) -> int:
    return recording.started_unix_microseconds if recording else 0
