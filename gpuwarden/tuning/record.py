# SPDX-License-Identifier: Apache-2.0
"""Keeps the record of the former profile, so that no crash and no power cut loses it."""

import os
from pathlib import Path

from pydantic import ValidationError

from gpuwarden import names
from gpuwarden.tuning.decision import Record


class RecordError(Exception):
    """The record can't be read or kept; the text says why and what follows."""


def read_record(path: Path = names.TUNING_RECORD_FILE) -> Record | None:
    """The record; None where we have changed nothing.

    :raises RecordError: there is one that can't be read.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise RecordError(
            f"{path}: {why}; what the host had before can't be told: set the profile that you want "
            "with `tuned-adm profile` and remove the file"
        ) from error


def keep_record(record: Record, path: Path = names.TUNING_RECORD_FILE) -> None:
    """Have the record on the disk when this returns: the old one or the new, never a part.

    :raises RecordError: it can't be written, so nothing may be changed.
    """
    temporary = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o644), "wb") as stream:
            stream.write(record.model_dump_json().encode())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RecordError(
            f"{path} can't be written ({error.strerror}), so the host is left as it is: what it "
            "has now could not be put back"
        ) from error


def drop_record(path: Path = names.TUNING_RECORD_FILE) -> None:
    """Forget it: the host has its own back. Raises RecordError."""
    try:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise RecordError(f"{path} can't be removed: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
