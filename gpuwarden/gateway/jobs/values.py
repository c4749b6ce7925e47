# SPDX-License-Identifier: Apache-2.0
"""What a durable job is made of, between HTTP, store and dispatch."""

import secrets
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

ID_BITS = 128  # knowing an id is the right to read the job: nobody can guess one
PRIORITY_LOWEST, PRIORITY_HIGHEST = -100, 100
PAGE, PAGE_LIMIT = 100, 1000  # jobs in one answer
PLACE_DIGITS = 18  # of a place in their list: what SQLite counts up to has 19
WAIT_LIMIT_SECONDS = 60  # for a job's end, in one request


class JobStatus(StrEnum):
    """Where a job is; the words of ``GET /v1/jobs``."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETING = "deleting"  # never shown: its keys are being destroyed

    @property
    def is_final(self) -> bool:
        """Whether nothing more will be done for it."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


SHOWN = tuple(status for status in JobStatus if status is not JobStatus.DELETING)
FINAL = tuple(status for status in SHOWN if status.is_final)


def new_id() -> str:
    """A fresh id: 32 hexadecimal digits."""
    return secrets.token_hex(ID_BITS // 8)


def is_id(text: str) -> bool:
    """Whether ``text`` has the form of an id."""
    return len(text) == ID_BITS // 4 and all(letter in "0123456789abcdef" for letter in text)


@dataclass(frozen=True)
class NewJob:
    """A job whose body has been received.

    :param content: the image.
    :param idempotency: keyed hash of the caller's Idempotency-Key; None without one.
    :param request: keyed hash of what is asked of which image, to know a repeat by.
    """

    content: memoryview
    media_type: str
    question: str | None
    priority: int
    idempotency: bytes | None = None
    request: bytes | None = None


@dataclass(frozen=True)
class JobRow:
    """A job as the database has it; times in seconds since 1970."""

    id: str
    sequence: int
    status: JobStatus
    priority: int
    created: float
    started: float | None
    finished: float | None
    body_bytes: int
    request: bytes | None
    executions: int
    deaths: int
    tries: int
    lease: int
    idempotency: bytes | None
    error: str


@dataclass(frozen=True)
class Lease:
    """The right to work on a job for a while; a result under another token is discarded.

    :param executions: how often it was given out, this time included: over 1, it is a repeat.
    :param deaths: of workers while it was alone in them.
    :param tries: executions that took too long, or failed by a fault of ours or of the disk.
    """

    id: str
    token: int
    priority: int
    body_bytes: int
    executions: int
    deaths: int
    tries: int


@dataclass(frozen=True)
class JobBody:
    """What a worker is to answer; the image is where the reader had it put."""

    media_type: str
    question: str | None
    length: int


@dataclass(frozen=True)
class JobResult:
    """How a job ended: an answer or an error.

    :ivar part: of an answer that is large or no JSON, what the stored content is (see
        gpuwarden.worker.outputs), with its media type and length; empty for all others.
    """

    ok: bool
    answer: dict[str, Any] | None = None
    error_type: str = ""
    error_message: str = ""
    model: str = ""
    worker: int | None = None
    seconds: float = 0.0  # from its dispatch to its answer
    cancelled: bool = False
    part: str = ""
    media_type: str = ""
    content_bytes: int = 0

    @property
    def status(self) -> JobStatus:
        """What the job's status becomes."""
        if self.cancelled:
            return JobStatus.CANCELLED
        return JobStatus.SUCCEEDED if self.ok else JobStatus.FAILED


@dataclass(frozen=True)
class JobCounts:
    """All jobs in figures.

    :ivar files_bytes: what bodies and results take on disk.
    """

    by_status: dict[JobStatus, int] = field(default_factory=dict)
    files_bytes: int = 0

    def __getitem__(self, status: JobStatus) -> int:
        return self.by_status.get(status, 0)

    @property
    def unanswered(self) -> int:
        """Jobs that have no end yet."""
        return self[JobStatus.QUEUED] + self[JobStatus.RUNNING]

    def shown(self, at_work: int) -> "JobCounts":
        """As callers see them: so many of the leased jobs run, the others wait in memory."""
        leased = self[JobStatus.RUNNING]
        running = min(at_work, leased)  # whose end is being written is nobody's any more
        queued = self[JobStatus.QUEUED] + leased - running
        seen = {JobStatus.QUEUED: queued, JobStatus.RUNNING: running}
        return replace(self, by_status={**self.by_status, **seen})


class JobStoreError(Exception):
    """The store can't do it; the text says what and why, and holds nothing of a job's content."""


class MomentaryError(JobStoreError):
    """Open files or memory are used up now: no file's fault, and none is lost by it."""


class StoreFullError(JobStoreError):
    """The disk is full."""
