# SPDX-License-Identifier: Apache-2.0
"""The job service: opens the store, works through it, lets what is old go."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from gpuwarden.control.states import GatewayJobs
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.errors import worker_error
from gpuwarden.gateway.jobs import sealed
from gpuwarden.gateway.jobs.budget import DiskBudget
from gpuwarden.gateway.jobs.database import BrokenDatabaseError
from gpuwarden.gateway.jobs.errands import Errands
from gpuwarden.gateway.jobs.feeder import Feeder
from gpuwarden.gateway.jobs.keys import NoKeyError, StoreKey, key_from_credential
from gpuwarden.gateway.jobs.memory import JobMemory
from gpuwarden.gateway.jobs.recovery import open_store
from gpuwarden.gateway.jobs.sealed import SealError
from gpuwarden.gateway.jobs.store import DiskStore
from gpuwarden.gateway.jobs.values import (
    JobCounts,
    JobResult,
    JobRow,
    JobStatus,
    JobStoreError,
    is_id,
)
from gpuwarden.gateway.jobs.views import job_document
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.messages import ResultError, Told
from gpuwarden.gateway.settings import GatewaySettings
from gpuwarden.names import JOBS_DIRECTORY
from gpuwarden.systemd.events import Event, tell

log = logging.getLogger(__name__)

EXPIRY_SECONDS = 30.0  # between two looks for what is to go
STOPPING = "the service is stopping"
KeySource = Callable[[], StoreKey]
Handover = tuple[str, WorkerLink, Told, bytes]


@dataclass(frozen=True)
class JobPlace:
    """Where jobs are kept, and where their key comes from."""

    folder: Path = JOBS_DIRECTORY
    key: KeySource = key_from_credential


class Open:
    """An open store and whoever works through it."""

    def __init__(self, store: DiskStore, dispatcher: Dispatcher) -> None:
        self.store = store
        self.memory = JobMemory(dispatcher.pool)
        self.feeder = Feeder(store, dispatcher, self.memory)
        # Kept by those who wait: one that has left takes the end from none of the others.
        self._finished: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._closing = False
        self.errands = Errands()
        self.feeder.on_finished = self._tell_finished

    def counts(self) -> JobCounts:
        """All jobs in figures, as their documents tell it."""
        return self.store.counts.shown(len(self.feeder.at_work()))

    async def document(self, row: JobRow, result: JobResult | None) -> dict[str, Any]:
        """A job as its caller sees it, with its place or its result."""
        ahead = await self.store.ahead(row) if row.status is JobStatus.QUEUED else None
        return job_document(row, self.feeder.running_seconds(row.id), ahead, result)

    async def result(self, row: JobRow) -> JobResult | None:
        """How a job ended; None where it has not, or has no result.

        :raises FileNotFoundError: it was deleted meanwhile.
        :raises SealError: it has a result that can't be read any more.
        """
        if not row.status.is_final:
            return None
        try:
            return await self.store.result(row.id)
        except (FileNotFoundError, SealError) as error:
            if await self.store.find(row.id) is None:
                raise FileNotFoundError(row.id) from None
            why = error if isinstance(error, SealError) else f"{sealed.shown(row.id)} is gone"
            log.error("a stored result can't be read: %s", why)
            if row.status is JobStatus.SUCCEEDED:
                raise SealError("the stored result is gone or damaged") from error
            return None  # the row says what became of it

    async def until_finished(self, id: str, seconds: float) -> JobRow | None:
        """The job when it has ended, or after so long.

        :raises JobStoreError: this service ends before.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        event = self._finished.setdefault(id, asyncio.Event())
        while True:
            if self._closing:
                raise JobStoreError(STOPPING)
            row = await self.store.find(id)  # what woke us may be that it is tried again
            if row is None or row.status.is_final or loop.time() >= end:
                return row
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await event.wait()
            event = self._finished.setdefault(id, asyncio.Event())

    def dismiss(self) -> None:
        """Have all who wait for a job's end come again: nobody keeps this service from its own."""
        self._closing = True
        for event in list(self._finished.values()):
            event.set()

    async def cancel(self, id: str) -> bool:
        """End a job, though its caller may leave; False where it has ended."""
        return await self.errands.run(self._cancel(id))

    async def delete(self, id: str) -> None:
        """Destroy a job, though its caller may leave."""
        await self.errands.run(self._delete(id))

    async def _cancel(self, id: str) -> bool:
        cancelled = await self.store.cancel(id)
        if cancelled:  # else its end is being written by whoever works on it
            await self.feeder.stop_work(id)
        self._tell_finished(id)
        return cancelled

    async def _delete(self, id: str) -> None:
        try:
            await self.store.delete(id)
        finally:  # nobody wants its result, even if the disk refuses to destroy what is there
            await self.feeder.stop_work(id)
            self._tell_finished(id)

    def handed_over(self, ticket: str, link: WorkerLink, result: Told, body: bytes) -> None:
        """A worker has the result of a job that a former front door gave out."""
        id, _, token = ticket.partition(":")
        if not is_id(id) or not token.isdecimal():
            log.warning("worker %d handed over what no job is; dropped", link.number)
            return
        if result.content is not None and result.content.length != len(body):
            log.warning("worker %d handed over half a result; dropped", link.number)
            return
        content = None if result.content is None else memoryview(body)
        self.errands.begin(self._take_over(id, int(token), result_of(link, result), content))

    async def _take_over(
        self, id: str, token: int, result: JobResult, content: memoryview | None
    ) -> None:
        try:
            if await self.store.hand_over(id, token, result, content):
                log.info("a worker handed over the result of a job that was under way")
                await self.feeder.stop_work(id)
                self._tell_finished(id)
        except JobStoreError as error:
            log.error("a result that was handed over can't be stored: %s", error)

    def _tell_finished(self, id: str) -> None:
        event = self._finished.pop(id, None)
        if event is not None:
            event.set()


class Jobs:
    """Durable jobs, or the reason why there are none.

    :ivar opened: None while jobs can't be kept.
    :ivar problem: why they can't, or not in full; empty while all is well.
    """

    def __init__(
        self, place: JobPlace, dispatcher: Dispatcher, on_change: Callable[[], None]
    ) -> None:
        self._place = place
        self._dispatcher = dispatcher
        self._on_change = on_change
        self.opened: Open | None = None
        self.problem = "the job store is being opened"
        self._last_published: GatewayJobs | None = None
        self._early: list[Handover] | None = []  # until the store is open, or refused
        dispatcher.on_handover = self._handed_over

    async def open(self) -> None:
        """Open the store; what keeps it shut is said, and leaves the rest of the service alone."""
        try:
            store = await open_store(self._place.folder, self._place.key(), self._budget())
        except (JobStoreError, NoKeyError, OSError) as error:
            self.problem, self._early = f"jobs can't be kept: {error}", None
            tell(Event.JOB_STORE_REFUSED, self.problem, logging.ERROR)
            return
        self.opened, self.problem = Open(store, self._dispatcher), ""
        store.on_change = self._changed
        store.database.on_broken = self._broken
        self._dispatcher.on_repeat = self.opened.feeder.repeat
        early, self._early = self._early, None
        for what in early or ():
            self.opened.handed_over(*what)
        tell(Event.JOB_STORE_OPEN, f"{store.counts[JobStatus.QUEUED]} jobs wait")

    def apply(self) -> None:
        """Go by the dispatcher's new settings."""
        if self.opened is not None:
            self.opened.store.promises.budget = self._budget()

    def wake(self) -> None:
        """A worker may have room."""
        if self.opened is not None:
            self.opened.feeder.wake()

    async def run(self) -> None:
        """Work through the store until cancelled."""
        if self.opened is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self.opened.feeder.run())
            group.create_task(self._let_go(self.opened))
            self.opened.feeder.wake()

    async def close(self, seconds: float) -> None:
        """Let what a worker has finish, then close."""
        self._last_published = self.published()
        opened, self.opened = self.opened, None
        self.problem = STOPPING
        if opened is not None:
            opened.dismiss()
            await opened.feeder.close(seconds)
            await opened.errands.close()
            await opened.store.close()

    def published(self) -> GatewayJobs:
        """The figures for the snapshot."""
        if self.opened is None:
            return self._last_published or GatewayJobs(problem=self.problem)
        counts = self.opened.counts()
        return GatewayJobs(
            queued=counts[JobStatus.QUEUED],
            running=counts[JobStatus.RUNNING],
            succeeded=counts[JobStatus.SUCCEEDED],
            failed=counts[JobStatus.FAILED],
            cancelled=counts[JobStatus.CANCELLED],
            stored_bytes=counts.files_bytes,
            limit_bytes=self.opened.store.promises.budget.limit_bytes,
            problem=self.problem,
        )

    def _handed_over(self, ticket: str, link: WorkerLink, result: Told, body: bytes) -> None:
        """Take a result that a former front door asked for; workers are here before the store."""
        if self.opened is not None:
            self.opened.handed_over(ticket, link, result, body)
        elif self._early is not None:
            self._early.append((ticket, link, result, body))

    def _broken(self, error: BrokenDatabaseError) -> None:
        """What was sound at the start is so no more. Told once: each call meets it."""
        if self.problem:
            return
        self.problem = (
            f"jobs can't be kept: their database is broken ({error}); systemctl restart"
            " medgemma-gateway makes a new one from the stored files"
        )
        tell(Event.JOB_STORE_REFUSED, self.problem, logging.ERROR)
        self._on_change()

    def _changed(self) -> None:
        self.wake()
        self._on_change()

    async def _let_go(self, opened: Open) -> None:
        while True:
            keep_seconds = self._dispatcher.settings.job_keep_seconds
            try:  # an errand: a stop of the service must not wait here for a disk that hangs
                await opened.errands.run(opened.store.expire(keep_seconds))
            except JobStoreError as error:
                log.error("old jobs can't be deleted now: %s", error)
            await asyncio.sleep(EXPIRY_SECONDS)

    def _budget(self) -> DiskBudget:
        settings: GatewaySettings = self._dispatcher.settings
        return DiskBudget(settings.job_disk_limit_bytes, settings.job_disk_free_share)


def result_of(link: WorkerLink, result: Told) -> JobResult:
    """A worker's RESULT as a job's."""
    seconds, content = result.predict_seconds, result.content
    if result.ok:
        return JobResult(
            ok=True,
            # With a ticket it comes as an object: see gpuwarden.worker.running.
            answer=None if isinstance(result.answer, bytes) else result.answer,
            model=link.model,
            worker=link.number,
            seconds=seconds,
            part=content.part if content else "",
            media_type=content.media_type if content else "",
            content_bytes=content.length if content else 0,
        )
    told = result.error or ResultError(type="engine_error")
    error = worker_error(told.type, told.message)
    return JobResult(ok=False, error_type=error.type, error_message=error.message)
