# SPDX-License-Identifier: Apache-2.0
"""Where jobs are kept, and the small part of it that whoever works on them relies on.

``JobStore`` is all that dispatch knows: a broker that several nodes share can take this place.
``DiskStore`` is the one of a single node: files for what is a patient's, SQLite for the rest.

The order of steps makes each crash harmless. A body has its name before its row, a result before
its job's end, and a job is out of sight before its keys go: what a start finds is finished or taken
back (see ``recovery``).
"""

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from gpuwarden.gateway.jobs import rows, sealed
from gpuwarden.gateway.jobs.budget import DiskBudget
from gpuwarden.gateway.jobs.clocks import boottime_seconds, moment
from gpuwarden.gateway.jobs.database import Database
from gpuwarden.gateway.jobs.disk import FileThreads, has_lost_it
from gpuwarden.gateway.jobs.errands import to_the_end
from gpuwarden.gateway.jobs.keys import StoreKey
from gpuwarden.gateway.jobs.promises import Promises
from gpuwarden.gateway.jobs.resultfile import read_result, write_result
from gpuwarden.gateway.jobs.values import (
    JobBody,
    JobCounts,
    JobResult,
    JobRow,
    JobStatus,
    JobStoreError,
    Lease,
    NewJob,
    new_id,
)

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")
Place = Callable[[int], memoryview]

DATABASE = "jobs.sqlite3"
FILES = "files"
FILE_THREADS = 2  # encrypt and sync; a third would only wait for the same disk
SET_ASIDE_SECONDS = 86400.0


class JobStore(Protocol):
    """Work to be done: claim it, hold on to it, and say what came of it."""

    @property
    def has_work(self) -> bool:
        """Whether a claim may find something."""

    async def claim(self, count: int, seconds: float) -> list[Lease]:
        """Lease up to ``count`` jobs, the most important and oldest first."""

    async def fetch(self, lease: Lease, place: Place) -> JobBody:
        """Put the image where ``place`` of its length says. Raises SealError, JobStoreError."""

    async def extend(self, leases: Sequence[Lease], seconds: float) -> set[str]:
        """Hold on to leases; the ids of those that are still held. What nobody held on to ends."""

    async def ack(self, lease: Lease, result: JobResult, content: memoryview | None = None) -> bool:
        """Finish a job; False where the lease is not held any more: the result is discarded."""

    async def nack(self, lease: Lease, tries: int, *, begun: bool) -> bool:
        """Give a job back to its place; ``begun``: a worker may have had it."""

    async def note_repeat(self, lease: Lease, deaths: int) -> None:
        """Remember that a job is given out once more, and how many workers it has killed."""

    async def set_aside(self, lease: Lease) -> None:
        """Take no more of a body that kills workers."""


class DiskStore:
    """Jobs in one folder of this node; opened by ``recovery.open_store``."""

    def __init__(self, folder: Path, key: StoreKey, budget: DiskBudget) -> None:
        self.folder = folder
        self.files = folder / FILES
        self.key = key
        self.promises = Promises(folder, budget)
        self.counts = JobCounts()
        self.database = Database(folder / DATABASE, self.files)
        self._threads = FileThreads(FILE_THREADS)
        # Of jobs that end; each kept by those who have or await it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._set_aside: dict[bytes, float] = {}
        self.bodies_left: set[str] = set()  # of jobs that have ended: the disk has refused them
        self.on_change: Callable[[], None] = lambda: None

    # --- callers

    @property
    def has_work(self) -> bool:
        """Whether a job waits to be claimed."""
        return self.counts[JobStatus.QUEUED] > 0

    def promised(self, length: int) -> AbstractContextManager[None]:
        """Room for a body and its result, kept while it comes. Raises StoreFullError."""
        return self.promises.for_job(self.counts, length)

    async def submit(self, job: NewJob) -> tuple[JobRow, bool]:
        """Keep a job; durable on return. The row, and whether it is new.

        :raises StoreFullError: the disk is full; nothing of it is left.
        """
        id = new_id()
        meta = {
            "created": time.time(),
            "media_type": job.media_type,
            "question": job.question,
            "priority": job.priority,
            "idempotency": job.idempotency and job.idempotency.hex(),
            "request": job.request and job.request.hex(),
        }
        size = await self._threads.run(
            lambda: sealed.write(
                self.body_path(id), self.key.secret, f"{id}.body", meta, job.content
            )
        )
        try:
            row, new = await self._change(lambda connection: rows.add(connection, id, job, size))
        except BaseException:
            await asyncio.shield(self._threads.run(lambda: sealed.destroy(self.body_path(id))))
            raise
        if not new:
            await self._threads.run(lambda: sealed.destroy(self.body_path(id)))
        return row, new

    async def find(self, id: str) -> JobRow | None:
        """One job."""
        return await self.database.read(lambda connection: rows.find(connection, id))

    async def find_by_key(self, idempotency: bytes) -> JobRow | None:
        """The job that was submitted under that Idempotency-Key."""
        return await self.database.read(lambda c: rows.find_by_key(c, idempotency))

    async def ahead(self, row: JobRow) -> int:
        """How many jobs come before a queued one."""
        return await self.database.read(lambda connection: rows.ahead(connection, row))

    async def page(
        self,
        statuses: Sequence[JobStatus],
        after: int,
        limit: int,
        at_work: Collection[str] = (),
    ) -> list[JobRow]:
        """Jobs in the order of their acceptance: see ``rows.page``."""
        return await self.database.read(lambda c: rows.page(c, statuses, after, limit, at_work))

    async def result(self, id: str) -> JobResult:
        """How a finished job ended. Raises SealError, FileNotFoundError, JobStoreError."""
        return await self._threads.read(lambda: read_result(self.result_path(id), self.key, id))

    async def content(self, id: str, place: Place) -> None:
        """Put what a result has beside it where ``place`` of its length says.

        :raises SealError, FileNotFoundError, JobStoreError: it is not what was written.
        """
        path, name = self.result_path(id), f"{id}.result"
        await self._threads.read(lambda: sealed.read(path, self.key.secret, name, place))

    async def sha256(self, content: memoryview) -> bytes:
        """An image's hash, made beside the event loop: 32 MB cost 20 to 80 ms."""
        return await self._threads.run(lambda: hashlib.sha256(content).digest())

    def asked(self, sha256: bytes, media_type: str, question: str | None) -> bytes:
        """The keyed hash by which a repeat is known: of an image's hash and what is asked of it."""
        text = "" if question is None else f"?{question}"
        return self.key.digest(sha256, media_type.encode(), text.encode("utf-8", "surrogateescape"))

    async def is_set_aside(self, content: memoryview, question: str | None) -> bool:
        """Whether this image with this question has killed workers lately.

        Hashed only while anything is set aside: 32 MB cost 50 ms.
        """
        if not self._set_aside:
            return False
        digest = await self._threads.run(lambda: self._digest(content, question))
        return self._set_aside.get(digest, 0.0) > time.time()

    async def delete(self, id: str) -> bool:
        """Destroy a job's keys and forget it; False where there is none."""
        return await self._one_end(id, lambda: self._delete(id))

    async def _delete(self, id: str) -> bool:
        if not await self._change(lambda connection: rows.mark_deleting(connection, id)):
            return False
        await self._threads.run(lambda: self.destroy_files(id))
        await self._change(lambda connection: rows.forget(connection, id))
        return True

    async def cancel(self, id: str) -> bool:
        """End a job that is not finished; False where there is none such."""
        row = await self.find(id)
        if row is None or row.status.is_final:
            return False
        result = JobResult(
            ok=False, error_type="job_cancelled", error_message="it was cancelled", cancelled=True
        )
        return await self._one_end(id, lambda: self._finish(id, lambda row: True, result))

    async def expire(self, keep_seconds: float) -> int:
        """Delete what was finished longer ago, or was to be deleted before; returns how many."""
        old = await self.database.read(
            lambda c: rows.expired(c, keep_seconds, moment()) + rows.deleting(c)
        )
        for id in list(self.bodies_left):
            await self._destroy_body(id)
        deleted = 0
        for id in old:
            try:
                deleted += await self.delete(id)
            except JobStoreError as error:  # one bad file must not keep the others
                log.error("%s can't be deleted now: %s", sealed.shown(id), error)
        return deleted

    async def hand_over(
        self, id: str, token: int, result: JobResult, content: memoryview | None = None
    ) -> bool:
        """Finish a job with what a worker made of a lease that a former front door gave it.

        It may have been given out again since; who comes first has done it.
        """
        return await self._one_end(
            id, lambda: self._finish(id, lambda row: 0 < token <= row.lease, result, content)
        )

    # --- JobStore

    async def claim(self, count: int, seconds: float) -> list[Lease]:
        """Lease up to ``count`` jobs, the most important and oldest first."""
        until, unix = boottime_seconds() + seconds, time.time()
        return await self._change(lambda c: rows.claim(c, count, until, unix))

    async def fetch(self, lease: Lease, place: Place) -> JobBody:
        """Put the image where ``place`` of its length says.

        :raises SealError: it can't be read, now or later.
        :raises JobStoreError: it can't be read now.
        """
        path, name = self.body_path(lease.id), f"{lease.id}.body"
        try:
            # Whoever is stopped gives the place back: to be another's, nothing may write to it.
            body = await to_the_end(
                self._threads.read(lambda: sealed.read(path, self.key.secret, name, place))
            )
        except FileNotFoundError:
            raise sealed.SealError(f"{sealed.shown(name)}: it is gone") from None
        except JobStoreError as error:
            if has_lost_it(error):
                raise sealed.SealError(f"{sealed.shown(name)}: {error}") from error
            raise
        return JobBody(body.meta["media_type"], body.meta["question"], body.length)

    async def extend(self, leases: Sequence[Lease], seconds: float) -> set[str]:
        """Hold on to leases; the ids of those that are still held. What nobody held on to ends."""
        if not self.counts[JobStatus.RUNNING]:
            return set()
        now = boottime_seconds()

        def extend(connection: sqlite3.Connection) -> set[str]:
            held = rows.extend(connection, leases, now + seconds)
            rows.release_expired(connection, now)
            return held

        return await self._change(extend)

    async def ack(self, lease: Lease, result: JobResult, content: memoryview | None = None) -> bool:
        """Finish a job; False where the lease is not held any more: the result is discarded."""
        length = 0 if content is None else len(content)
        id, token = lease.id, lease.token
        with self.promises.for_result(self.counts, length, lease.body_bytes):
            return await self._one_end(
                id, lambda: self._finish(id, lambda row: row.lease == token, result, content)
            )

    async def nack(self, lease: Lease, tries: int, *, begun: bool) -> bool:
        """Give a job back to its place; ``begun``: a worker may have had it."""
        return await self._change(lambda c: rows.give_back(c, lease, tries, begun=begun))

    async def note_repeat(self, lease: Lease, deaths: int) -> None:
        """Remember that a job is given out once more, and how many workers it has killed."""
        await self.database.write(lambda c: rows.note_repeat(c, lease, deaths))

    async def set_aside(self, lease: Lease) -> None:
        """Take no more of a body that kills workers, for a day. Raises SealError."""
        content = bytearray()

        def place(length: int) -> memoryview:
            content.extend(bytes(length))
            return memoryview(content)

        body = await self.fetch(lease, place)
        digest = await self._threads.run(lambda: self._digest(memoryview(content), body.question))
        until = time.time() + SET_ASIDE_SECONDS
        await self.database.write(lambda c: rows.set_aside(c, digest, until))
        self._set_aside[digest] = until

    def _digest(self, content: memoryview, question: str | None) -> bytes:
        return self.key.digest(content, (question or "").encode("utf-8", "surrogateescape"))

    # --- files

    def body_path(self, id: str) -> Path:
        """Where a job's body lies."""
        return self.files / f"{id}.body"

    def result_path(self, id: str) -> Path:
        """Where its result will lie."""
        return self.files / f"{id}.result"

    def destroy_files(self, id: str) -> None:
        """Destroy body and result. Raises OSError."""
        sealed.destroy(self.body_path(id))
        sealed.destroy(self.result_path(id))

    async def close(self) -> None:
        """Finish what was asked for, then close."""
        await self.database.close()
        await self._threads.close()

    async def look_again(self) -> None:
        """Take the figures, and what is set aside, from the database."""
        unix = time.time()
        self._set_aside = await self.database.write(lambda c: rows.all_set_aside(c, unix))
        self.counts = await self.database.read(rows.counts)
        self.on_change()

    async def _finish(
        self,
        id: str,
        holds: Callable[[JobRow], bool],
        result: JobResult,
        content: memoryview | None = None,
    ) -> bool:
        """First the result gets its file, then the job its end, then the body goes."""
        row = await self.find(id)
        if row is None or row.status.is_final or not holds(row):
            log.warning("a result for a lease that is not held any more was discarded")
            return False
        end, path = moment(), self.result_path(id)
        size = await self._threads.run(
            lambda: write_result(path, self.key, row, result, end[0], content)
        )
        await self._change(lambda c: rows.finish(c, id, result, size, end))
        await self._destroy_body(id)
        return True

    async def _destroy_body(self, id: str) -> None:
        """The job has its end whatever the disk says; what it refuses is tried again later."""
        try:
            await self._threads.run(lambda: sealed.destroy(self.body_path(id)))
            self.bodies_left.discard(id)
        except JobStoreError as error:
            log.error("%s can't be destroyed now: %s", sealed.shown(f"{id}.body"), error)
            self.bodies_left.add(id)

    async def _one_end(self, id: str, work: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Ends of one job come one after the other, each whole, even if who asked for it leaves.

        Or a deletion would pass a result that is being written, and leave it on disk.
        """
        async with self._turns.setdefault(id, asyncio.Lock()):
            return await to_the_end(work())

    async def _change(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """A change that shows in the figures."""
        outcome, self.counts = await self.database.write(lambda c: (work(c), rows.counts(c)))
        self.on_change()
        return outcome
