# SPDX-License-Identifier: Apache-2.0
"""Keeps the workers busy with jobs when nobody else needs them: claims, decrypts, dispatches, acks.

Only so many jobs are in memory as the workers can take next; all others wait on disk. Each of them
goes through the dispatcher like any request, in the class that comes after the people who wait.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gpuwarden.gateway.blame import is_given_up
from gpuwarden.gateway.body import Body
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import where
from gpuwarden.gateway.job import Answer, Job
from gpuwarden.gateway.jobs.ends import BODY_GONE, NO_RESULT, answered, no_room
from gpuwarden.gateway.jobs.memory import JobMemory, held_bytes
from gpuwarden.gateway.jobs.sealed import SealError
from gpuwarden.gateway.jobs.store import JobStore
from gpuwarden.gateway.jobs.values import (
    JobBody,
    JobResult,
    JobStoreError,
    Lease,
    MomentaryError,
    StoreFullError,
)
from gpuwarden.gateway.outputs import Output
from gpuwarden.gateway.work import Phase
from gpuwarden.systemd.events import Event, tell

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
EXTEND_SECONDS = 20.0
LOOK_AHEAD_LIMIT = 64  # jobs in memory, however many workers there are
RESERVE = 2  # ready beside what the workers hold
RETRY_SECONDS = 2.0  # after a store that failed, say of a full disk
ROOM_SECONDS = 30.0  # at most until a job is executed again whose result found no room
TRIES_LIMIT = 3  # executions over time, faults of ours or the disk's: then that is its result
FAULT = "the service failed; its journal says where"
# What may be the fault of the moment, and is tried again; all else is the job's own answer.
COUNTED = {"execution_timeout", "internal_error"}
FULL = {"unavailable", "queue_timeout", "queue_full"}  # no fault of the job's: it waits for room


@dataclass(eq=False)
class Running:
    """A leased job in memory."""

    lease: Lease
    tries: int
    job: Job | None = None
    task: asyncio.Task[None] | None = None
    noting: asyncio.Task[None] | None = None
    output: Output | None = None

    @property
    def was_dispatched(self) -> bool:
        """Whether a worker may have begun with it, for the last time that is on record."""
        return self.job is not None and self.job.request.dispatched_at is not None

    @property
    def dispatched_at(self) -> float | None:
        """Since when a worker has it; None while it waits for one."""
        request = self.job and self.job.request
        return request.dispatched_at if request and request.phase is Phase.RUNNING else None


class Feeder:
    """The one who works through a store.

    :ivar running: the jobs in memory, by id.
    """

    def __init__(self, store: JobStore, dispatcher: Dispatcher, memory: JobMemory) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._memory = memory
        self._wake = asyncio.Event()
        self._freed = asyncio.Event()
        dispatcher.pool.on_freed = self._freed.set
        self._results_freed = asyncio.Event()
        dispatcher.lending.pool.on_freed = self._results_freed.set
        self._for_results = asyncio.Lock()
        self._loading = asyncio.Lock()
        self._closing = False
        self._waiting_for_results = 0
        self.running: dict[str, Running] = {}
        self.on_finished: Callable[[str], None] = lambda id: None

    def running_seconds(self, id: str) -> float | None:
        """For how long a worker has had a job; None while none has."""
        one = self.running.get(id)
        since = None if one is None else one.dispatched_at
        return None if since is None else asyncio.get_running_loop().time() - since

    def at_work(self) -> dict[str, float]:
        """The jobs that a worker has, with ``running_seconds``; others are leased, and wait."""
        seconds = {id: self.running_seconds(id) for id in self.running}
        return {id: since for id, since in seconds.items() if since is not None}

    def wake(self) -> None:
        """There may be work, or room for it."""
        if self._store.has_work and self._wanted() > 0:
            self._wake.set()

    def look_ahead(self) -> int:
        """How many jobs are to be in memory now."""
        capacity = self._dispatcher.queue.cards.capacity
        if self._closing or not capacity:
            return 0
        return min(LOOK_AHEAD_LIMIT, math.ceil(2 * capacity) + RESERVE)

    def _wanted(self) -> int:
        """How many more; those that wait for room for a result keep nobody out."""
        held = len(self.running)
        return min(self.look_ahead() + self._waiting_for_results, LOOK_AHEAD_LIMIT) - held

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hold_on())
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._claim()
                except JobStoreError as error:
                    log.error("no job can be claimed now: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    self._wake.set()

    async def close(self, seconds: float) -> None:
        """Claim nothing more, let what a worker has finish, give the rest back."""
        self._closing = True
        for one in list(self.running.values()):
            if one.dispatched_at is None and one.task is not None:
                one.task.cancel()
        tasks = [one.task for one in self.running.values() if one.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop_work(self, id: str) -> None:
        """Nobody wants this job's result any more."""
        one = self.running.get(id)
        if one is not None and one.task is not None:
            one.task.cancel()
            await asyncio.wait([one.task])

    def repeat(self, job: Job) -> None:
        """A worker may have begun it: the next one gets it when that is on record."""
        for one in self.running.values():
            if one.job is job:
                one.noting = asyncio.create_task(self._repeat(one, job))

    async def _repeat(self, one: Running, job: Job) -> None:
        """A power cut from now on leaves no execution uncounted, and no death."""
        while not job.request.has_ended:
            try:
                await self._store.note_repeat(one.lease, job.request.solo_deaths)
            except JobStoreError as error:
                log.error("a job can't be given out once more, trying on: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                job.request.dispatched_at = None
                self._dispatcher.start_again(job)
                return

    async def _claim(self) -> None:
        wanted = self._wanted()
        if wanted <= 0 or not self._store.has_work:
            return
        for lease in await self._store.claim(wanted, LEASE_SECONDS):
            one = Running(lease, lease.tries)
            self.running[lease.id] = one
            one.task = asyncio.create_task(self._work(one))
            one.task.add_done_callback(partial(self._let_go, one))

    async def _hold_on(self) -> None:
        """Extend what is held; drop what was lost, and have what nobody holds wait again."""
        while True:
            await asyncio.sleep(EXTEND_SECONDS)
            ours = [one.lease for one in self.running.values()]
            try:
                held = await self._store.extend(ours, LEASE_SECONDS)
            except JobStoreError as error:
                log.error("leases can't be extended: %s", error)
                continue
            for lease in ours:
                if lease.id not in held:
                    await self.stop_work(lease.id)

    async def _work(self, one: Running) -> None:
        """One job, from its lease to its end."""
        begun = False
        try:
            result = await self._answer(one)
            begun = True
            if result is None:
                await self._give_back(one)
            else:
                await self._finish(one.lease, result, one.output)
        except asyncio.CancelledError:
            with contextlib.suppress(JobStoreError):  # a start gives it back as well
                await asyncio.shield(self._nack(one, begun=begun))
            raise

    def _let_go(self, one: Running, work: asyncio.Task[None]) -> None:
        """Its work has ended, or was cancelled: before its first step, perhaps."""
        if one.job is not None:
            one.job.part()
        self.running.pop(one.lease.id, None)
        self.on_finished(one.lease.id)
        self.wake()

    async def _answer(self, one: Running) -> JobResult | None:
        """Have a worker answer it; None where it is to be tried again."""
        started = asyncio.get_running_loop().time()
        try:
            async with self._memory.for_work(one.lease.body_bytes):
                answer = await self._execute(one)
        except JobStoreError as error:
            return await self._unread(one, error)
        except ApiError as error:
            return await self._failed(one, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must leave no job hanging
            log.error("a job has failed here: %s", where(error))
            return await self._failed(one, ApiError("internal_error", FAULT))
        seconds = asyncio.get_running_loop().time() - started
        one.output = answer.output
        return answered(answer, seconds)

    async def _unread(self, one: Running, error: JobStoreError) -> JobResult | None:
        """What it means that its image can't be read: the end, or None: try it again.

        For ever where that is no fault of the file's; else a few of them would stop all jobs.
        """
        one.tries += not isinstance(error, MomentaryError)
        if isinstance(error, SealError) or one.tries >= TRIES_LIMIT:
            log.error("a job's image can't be read: %s", error)
            return BODY_GONE
        log.error("a job's image can't be read now, trying on: %s", error)
        await asyncio.sleep(RETRY_SECONDS)
        return None

    async def _execute(self, one: Running) -> Answer:
        failure: BaseException | None = None
        job: Job | None = None
        try:
            async with self._loading:  # one after the other, or a small job would overtake
                job = one.job = await self._admit(one)
                body = await self._load(one.lease, job)
            await self._dispatcher.set_aside.check(body)
            return await self._dispatcher.execute(job, body)
        except BaseException as error:
            failure = error
            raise
        finally:
            if job is not None:
                self._dispatcher.leave(job, failure)

    async def _admit(self, one: Running) -> Job:
        """A place in the queue and a buffer; waits while people need all buffers."""
        lease, pool = one.lease, self._dispatcher.pool
        if held_bytes(lease.body_bytes) > pool.limit_bytes:
            text = "[gateway] pool_bytes has become too small for this image"
            raise ApiError("body_too_large", text, param="image")
        while True:
            self._freed.clear()
            try:
                return self._dispatcher.admit_job(lease.body_bytes, lease.priority, lease.deaths)
            except ApiError as error:
                if error.type not in FULL:
                    raise
            with contextlib.suppress(TimeoutError):  # of memory that others give back nothing tells
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._freed.wait()

    async def _load(self, lease: Lease, job: Job) -> Body:
        small = bytearray()

        def place(length: int) -> memoryview:
            if job.room.buffer is not None:
                return job.room.buffer.view[:length]
            small.extend(bytes(length))
            return memoryview(small)

        stored: JobBody = await self._store.fetch(lease, place)
        return Body(
            stored.media_type,
            stored.question,
            0,
            stored.length,
            inline=bytes(small),
            buffer=job.room.buffer,
            ticket=f"{lease.id}:{lease.token}",
        )

    async def _failed(self, one: Running, error: ApiError) -> JobResult | None:
        """What an error means for the job; None: try it again."""
        if error.type in FULL:
            await self._until_room()
            return None
        if error.type in COUNTED:
            one.tries += 1
            if one.tries < TRIES_LIMIT:
                return None
        if error.type == "worker_crashed" and one.job and is_given_up(one.job.request):
            await self._set_aside(one.lease)
            tell(
                Event.JOB_GIVEN_UP,
                "a job was given up: each of the last workers that had it alone died;"
                " its image is set aside for a day",
                logging.ERROR,
            )
        return JobResult(ok=False, error_type=error.type, error_message=error.message)

    async def _until_room(self) -> None:
        """Until a large result was taken: one job for each, or all would be executed in vain."""
        self._waiting_for_results += 1
        self.wake()
        try:
            async with self._for_results:
                self._results_freed.clear()
                is_in_use = self._dispatcher.lending.pool.in_use_bytes > 0
                with contextlib.suppress(TimeoutError):  # of other memory nothing tells
                    async with asyncio.timeout(ROOM_SECONDS if is_in_use else RETRY_SECONDS):
                        await self._results_freed.wait()
        finally:
            self._waiting_for_results -= 1

    async def _set_aside(self, lease: Lease) -> None:
        """Take no more of its image; where that can't be kept, the job ends all the same."""
        try:
            await self._store.set_aside(lease)
        except JobStoreError as error:
            log.error("an image that kills workers can't be set aside: %s", error)

    async def _give_back(self, one: Running) -> None:
        """Have it tried again, as soon as the store takes it back."""
        while True:
            try:
                await self._nack(one)
            except JobStoreError as error:
                log.error("a job can't be given back, trying on: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _nack(self, one: Running, *, begun: bool = False) -> None:
        if one.noting is not None:
            await asyncio.wait([one.noting])
        begun = begun or one.was_dispatched
        await self._store.nack(one.lease, one.tries, begun=begun)

    async def _finish(self, lease: Lease, result: JobResult, output: Output | None) -> None:
        """Keep the result; on a full disk again and again, for the work is done.

        But not a large one: it would keep memory from the others until somebody has cleared up.
        """
        content = None if output is None else output.view()
        told = False
        while True:
            try:
                await self._store.ack(lease, result, content)
            except JobStoreError as error:
                if content is not None and isinstance(error, StoreFullError):
                    result, content = no_room(error), None
                    tell(
                        Event.JOB_RESULT_GIVEN_UP,
                        f"a job's large result found no room and was given up: {error}",
                        logging.ERROR,
                    )
                    continue
                if not told:
                    tell(
                        Event.JOB_STORE_FULL,
                        f"a job's result can't be stored, trying on: {error}",
                        logging.ERROR,
                    )
                told = True
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - no JSON, say: no second try would store it
                log.error("a job's result can't be stored: %s", where(error))
                if result is NO_RESULT:
                    await asyncio.sleep(RETRY_SECONDS)
                result, content = NO_RESULT, None
            else:
                return
