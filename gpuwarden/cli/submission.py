# SPDX-License-Identifier: Apache-2.0
"""Sends images to the front door as jobs, each once, however often it is tried.

A job's Idempotency-Key follows from the image's content and the question, so a second run of the
same command, after a crash or a full disk, submits what is missing and finds the rest again.
"""

import base64
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import Door, Reply

HEAD_BYTES = 132
TRIES_SECONDS = 60.0  # for a service that restarts, or takes no more at the moment
PAUSE_SECONDS = 0.5
PASSING = {429, 503}


@dataclass(frozen=True)
class Image:
    """A file and what it is, by its first bytes."""

    path: Path
    media_type: str


@dataclass
class Submitted:
    """What came of one file: a job's id, or the problem."""

    image: Image
    id: str = ""
    is_new: bool = False
    problem: str = ""
    job: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The job's status, as far as it is known."""
        return str(self.job.get("status", ""))

    def is_good(self, *, answered: bool) -> bool:
        """Whether it was taken or, if that was waited for, answered."""
        return self.status == "succeeded" if answered else bool(self.id)


@dataclass
class Found:
    """What was found in files and folders.

    :ivar skipped: how many files in folders are no image.
    :ivar problems: what in folders could not be looked at, and why.
    """

    images: list[Image] = field(default_factory=list)
    skipped: int = 0
    problems: list[str] = field(default_factory=list)


def find_images(paths: Sequence[Path]) -> Found:
    """The files, and all images in the folders.

    :raises CommandError: a path that was named is not there, can't be read, or is no file.
    """
    found = Found()
    for path in paths:
        try:
            if path.is_dir():
                look_into(path, found)
                continue
            if not path.is_file():
                why = "it is no regular file" if path.exists() else "there is no such file"
                raise CommandError(f"{path}: {why}", Exit.BAD_USE)
            kind = media_type_of(path) or "application/octet-stream"
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}", Exit.BAD_USE) from error
        found.images.append(Image(path, kind))
    return found


def look_into(folder: Path, found: Found) -> None:
    """All images of a folder and the folders in it; what can't be read keeps no other from it.

    :raises OSError: the folder itself can't be read.
    """
    with os.scandir(folder):
        pass
    for file in sorted(files_below(folder, found.problems)):
        try:
            # Whoever opens a pipe waits for its writer, and a device may do anything.
            is_regular = stat.S_ISREG(file.stat().st_mode)
            kind = media_type_of(file) if is_regular else None
        except OSError as error:
            found.problems.append(f"{file}: {error.strerror}")
            continue
        found.skipped += kind is None
        found.images += [Image(file, kind)] if kind else []


def files_below(folder: Path, problems: list[str]) -> list[Path]:
    """All files of a folder and the folders in it, hidden ones left out."""

    def unread(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    found = []
    for place, folders, files in os.walk(folder, onerror=unread):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place) / name for name in files if not name.startswith(".")]
    return found


def media_type_of(path: Path) -> str | None:
    """What an image is by its first bytes; a ``.dcm`` without any preamble is DICOM too."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head[128:132] == b"DICM" or (head and path.suffix.lower() == ".dcm"):
        return "application/dicom"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    return "image/jpeg" if head.startswith(b"\xff\xd8\xff") else None


class Submission:
    """One run of the command.

    :param again: submit also what was submitted before.
    """

    def __init__(self, door: Door, question: str | None, priority: int, *, again: bool) -> None:
        self._door = door
        self._question = question
        self._priority = priority
        self._salt = os.urandom(16) if again else b""
        self._stopped = ""  # why nothing more is sent

    def run(
        self, images: Sequence[Image], parallel: int, step: Callable[[], None]
    ) -> list[Submitted]:
        """Send all; the outcomes in the order of ``images``.

        :raises CommandError: nobody answers there at all.
        """

        def one(image: Image) -> Submitted:
            try:
                return self._submit(image)
            finally:
                step()

        with ThreadPoolExecutor(parallel) as threads:
            outcomes = list(threads.map(one, images))
        if outcomes and not any(outcome.id for outcome in outcomes) and self._stopped:
            raise CommandError(self._stopped, Exit.UNREACHABLE)
        return outcomes

    def _submit(self, image: Image) -> Submitted:
        end = time.monotonic() + TRIES_SECONDS
        outcome = Submitted(image)
        try:
            digest = digest_of(image.path)
            key = self._key(image, digest)
            while not self._stopped:
                reply, problem = self._send(image, key, digest)
                if reply is not None and reply.status < 300:
                    return Submitted(image, reply.document["id"], reply.status == 202)
                passing = reply is None or reply.status in PASSING
                outcome.problem = problem if reply is None else reply.message
                if not passing:
                    return outcome
                pause = pause_seconds(reply)
                if time.monotonic() + pause > end:
                    self._stopped = self._stopped or (problem if reply is None else "")
                    return outcome
                time.sleep(pause)
        except OSError as error:
            outcome.problem = f"it can't be read: {error.strerror}"
        outcome.problem = outcome.problem or self._stopped
        return outcome

    def _send(self, image: Image, key: str, digest: bytes) -> tuple[Reply | None, str]:
        """One try: the answer, or why there was none."""
        headers = {
            "Content-Type": image.media_type,
            "Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
            "Idempotency-Key": key,
        }
        path = f"/v1/jobs?priority={self._priority}"
        if self._question is not None:
            path += f"&question={quote(self._question, safe='')}"
        connection = self._door.connect()
        with image.path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            try:
                return connection.send(path, headers, file, length), ""
            except OSError as error:
                reason = error.strerror or str(error)
                return None, f"{self._door.place} does not answer: {reason} (gpuwarden status)"

    def _key(self, image: Image, digest: bytes) -> str:
        """The same for the same image and question, and for nothing else."""
        asked = "" if self._question is None else f"?{self._question}"
        total = hashlib.sha256(f"{image.media_type}{asked}\0".encode("utf-8", "surrogateescape"))
        total.update(self._salt)
        total.update(digest)
        return f"submit-{total.hexdigest()}"


def digest_of(path: Path) -> bytes:
    """A file's SHA-256. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def pause_seconds(reply: Reply | None) -> float:
    """How long to wait before the next try: as long as the service says."""
    told = "" if reply is None else reply.headers.get("retry-after", "")
    return max(PAUSE_SECONDS, float(told)) if told.isdecimal() else PAUSE_SECONDS
