# SPDX-License-Identifier: Apache-2.0
"""Saves results of durable jobs as files: whole or not at all, and never over another file."""

import mimetypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import Connection
from gpuwarden.cli.working import working

MODE = 0o600  # it is a patient's: whoever else is to read it, says so
EXTENSIONS = {"application/dicom": ".dcm", "image/jpeg": ".jpg"}
OTHER_EXTENSIONS = mimetypes.MimeTypes()  # Python's own table, on every node the same


@dataclass(frozen=True)
class Saved:
    """A result that is a file now."""

    id: str
    file: Path
    media_type: str
    bytes: int


class Place:
    """Where results go.

    :param to: a folder, or the file's own name where there is one result alone.
    """

    def __init__(self, to: Path, results: int) -> None:
        self._to = to
        self._is_folder = to.is_dir()
        if not self._is_folder and results > 1:
            text = f"{to} is no folder: several results need one (mkdir {to})"
            raise CommandError(text, Exit.BAD_USE)
        if not self._is_folder and not to.parent.is_dir():
            raise CommandError(f"{to.parent}: no such folder (mkdir {to.parent})", Exit.BAD_USE)

    def file(self, id: str, media_type: str) -> Path:
        """The file of one result."""
        return self._to / f"{id}{extension(media_type)}" if self._is_folder else self._to


def extension(media_type: str) -> str:
    """How a file of that type is called; ``.bin`` where nobody knows."""
    kind = media_type.partition(";")[0].strip().lower()
    return EXTENSIONS.get(kind) or OTHER_EXTENSIONS.guess_extension(kind) or ".bin"


def save(connection: Connection, id: str, place: Place) -> Saved:
    """One job's result. Raises CommandError; then nothing is left of it."""
    with working(f"saving {id}"), connection.get(f"/v1/results/{id}") as (reply, content):
        if reply.status >= 400:
            code = Exit.UNREACHABLE if reply.status == 503 else Exit.WRONG
            raise CommandError(f"{id}: {reply.message}", code)
        media_type = reply.headers.get("content-type", "application/octet-stream")
        file = place.file(id, media_type)
        size = 0
        with new_file(file) as stream:
            for block in content:
                size += stream.write(block)
    return Saved(id, file, media_type, size)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name when the block has ended well. Raises CommandError.

    The name is taken first, so that nobody's file is replaced in the end.
    """
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE))
    except FileExistsError:
        text = f"{path} is there already: it is not overwritten"
        raise CommandError(text, Exit.WRONG) from None
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}", Exit.WRONG) from error
    try:
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(descriptor)
        part.rename(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CommandError(f"{path} can't be written: {error.strerror}", Exit.WRONG) from error
        raise
