# SPDX-License-Identifier: Apache-2.0
"""The way of every request that a worker is to answer: admitted, received, executed, left.

A request with an Idempotency-Key outlives its caller: a retry joins it, or gets its answer.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

from aiohttp.web import BaseRequest, RequestKey, StreamResponse

from gpuwarden.gateway.admission import Upload
from gpuwarden.gateway.alarm import Alarm
from gpuwarden.gateway.body import Body, Room, ask_for_body, is_here, receive, whole_body
from gpuwarden.gateway.bodyscan import REFERENCES_LIMIT, references_in
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import Handler
from gpuwarden.gateway.idempotency import Attempt, Attempts, check_key
from gpuwarden.gateway.images import ImageStore
from gpuwarden.gateway.job import Answer, Job
from gpuwarden.gateway.setaside import take_in
from gpuwarden.gateway.settings import GatewaySettings
from gpuwarden.gateway.tasks import failure_of

IMAGE_GONE = (
    "there is no such image: its time is over, or it was never sent here; send it again to"
    " POST /v1/images"
)

ACCEPTED = RequestKey("accepted", bool)  # it is counted by how it ends

Examine = Callable[[BaseRequest, GatewaySettings], Upload]
Check = Callable[[Body], None]


class Intake:
    """Takes requests in for one dispatcher."""

    def __init__(self, dispatcher: Dispatcher, images: ImageStore) -> None:
        self._loop = asyncio.get_running_loop()
        self.dispatcher = dispatcher
        self.images = images
        self.receiving = 0
        self._attempts: Attempts[Job] = Attempts(on_dropped=Job.part)
        self._living: set[asyncio.Task[None]] = set()
        self._alarm = Alarm(self._forget)

    @asynccontextmanager
    async def answering(
        self,
        request: BaseRequest,
        examine: Examine,
        may_begin: Callable[[], None] = lambda: None,
        check: Check = lambda body: None,
    ) -> AsyncIterator[Job]:
        """A job that a worker answers while the block runs. Raises ApiError.

        :param may_begin: looks at the headers, unless this is a repeat; may raise ApiError.
        :param check: looks at the received body before any worker does; may raise ApiError.
        """
        key, upload = self.examined(request, examine)
        known = None if key is None else self._attempts.known(key, self._loop.time())
        if known is not None:
            answering = self._repeating(request, upload, known)
        else:
            job = self._accept(upload, may_begin)
            request[ACCEPTED] = True
            answering = self._beginning(request, upload, job, key, check)
        async with answering as shared:
            yield shared

    @asynccontextmanager
    async def _beginning(
        self, request: BaseRequest, upload: Upload, job: Job, key: str | None, check: Check
    ) -> AsyncIterator[Job]:
        """The job, once its body has come; another one where that came first under its key."""
        with self._leaving(job):
            body = await self._body(request, upload, job)
            check(body)
            await self.dispatcher.set_aside.check(body)
            if key is None:
                self.dispatcher.start(job, body)
                yield job
                return
            digest = await digest_of(request, body)
            known = self._attempts.known(key, self._loop.time())
            if known is None:
                known = self._begin(key, digest, job, body)
            else:
                known.check_same(digest)
                self.dispatcher.withdraw(job)
            with known.work.held_by_caller() as shared:
                yield shared

    @asynccontextmanager
    async def _repeating(
        self, request: BaseRequest, upload: Upload, known: Attempt[Job]
    ) -> AsyncIterator[Job]:
        """The job that came first under this request's key. Raises ApiError.

        It has its place, its worker or its answer already: what keeps new work out is no reason to
        refuse this.
        """
        with known.work.held_by_caller() as shared:  # from now on: it may be forgotten meanwhile
            repeat = self._accept_repeat(upload)
            request[ACCEPTED] = True
            with self._leaving(repeat):
                body = await self._body(request, upload, repeat)
                known.check_same(await digest_of(request, body))
                self.dispatcher.withdraw(repeat)
                yield shared

    @contextmanager
    def _leaving(self, job: Job) -> Iterator[None]:
        """Leave a job after the block, unless it outlives its caller."""
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            if not job.shared:
                self.leave(job, failure)

    def begin(self, upload: Upload, content: bytes) -> Job:
        """Have a worker answer a request whose small body is here; nothing waits for anything.

        Whoever calls this leaves the job in the end. Raises ApiError.
        """
        try:  # no context manager: two of them cost the shortest way a fortieth
            job = self._accept(upload)
        except ApiError:
            self.dispatcher.reject()
            raise
        try:
            if upload.image is not None:
                body = self._refer(job, upload.image, Body("", upload.question, 0, 0))
            else:
                body = whole_body(content, upload)
            self.dispatcher.start(job, body)
        except BaseException as error:
            self.leave(job, error)
            raise
        return job

    def leave(self, job: Job, failure: BaseException | None) -> None:
        """Its caller has what there is to have, or doesn't wait any longer."""
        self.dispatcher.leave(job, failure)
        job.part()

    def examined(self, request: BaseRequest, examine: Examine) -> tuple[str | None, Upload]:
        """A request's Idempotency-Key, and what it is about to bring. Raises ApiError."""
        return key_of(request), examine(request, self.dispatcher.settings)

    def counted(self, handler: Handler) -> Handler:
        """The same with its refusals counted: errors for what was never accepted.

        The short way for small requests has no handlers, and counts its own.
        """

        async def handle(request: BaseRequest) -> StreamResponse:
            try:
                return await handler(request)
            except ApiError:
                if ACCEPTED not in request:
                    self.dispatcher.reject()
                raise

        return handle

    def _accept(self, upload: Upload, may_begin: Callable[[], None] = lambda: None) -> Job:
        """Accept a request by its headers. Raises ApiError."""
        may_begin()
        self._check_room()
        return self.dispatcher.admit(upload.length or 0)

    def _accept_repeat(self, upload: Upload) -> Job:
        """Accept a request whose key is known. Raises ApiError."""
        self._check_room()
        return self.dispatcher.admit_repeat(upload.length or 0)

    async def upload(self, request: BaseRequest, upload: Upload, room: Room) -> Body:
        """Receive a body that no worker is to answer. Raises ApiError."""
        deadline = self._loop.time() + self.dispatcher.settings.request_timeout_seconds
        return await self._receive(request, upload, room, deadline)

    async def close(self) -> None:
        """Give up what lives on without a caller."""
        for task in list(self._living):
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        self._alarm.cancel()
        self._attempts.clear()

    def check_room(self, *, is_new: bool = True) -> None:
        """Refuse where too many bodies come at once, and in a pause. Raises ApiError 429, 503.

        :param is_new: whether it may be work; a repeat is let in during a pause, too.
        """
        if is_new:
            self.dispatcher.check_open()
        self._check_room()

    def _check_room(self) -> None:
        limit = self.dispatcher.settings.uploads_limit
        if self.receiving >= limit:
            raise ApiError(
                "queue_full", f"{limit} uploads are on their way already", retry_after_seconds=1
            )

    async def _body(self, request: BaseRequest, upload: Upload, job: Job) -> Body:
        if upload.image is not None:
            return self._refer(job, upload.image, Body("", upload.question, 0, 0))
        body = await self._receive(request, upload, job.room, job.request.deadline)
        if body.reference is not None:
            return self._refer(job, body.reference, body)
        if body.form == "chat":
            await self._resolve(job, body)
        return body

    async def _receive(
        self, request: BaseRequest, upload: Upload, room: Room, deadline: float
    ) -> Body:
        ask_for_body(request)
        if is_here(request, upload):
            return await receive(request, upload, room)  # nothing to wait for
        self.receiving += 1
        try:
            async with asyncio.timeout_at(deadline):
                return await receive(request, upload, room)
        except TimeoutError:
            raise ApiError(
                "request_timeout", "the body did not come within the time limit", param="body"
            ) from None
        finally:
            self.receiving -= 1

    def _refer(self, job: Job, identifier: str, body: Body) -> Body:
        """A body that is an image which was sent before. Raises ApiError."""
        body = self.referred(identifier, body)
        for buffer in body.buffers():
            self.dispatcher.hold(job, buffer)
        return body

    def referred(self, identifier: str, body: Body) -> Body:
        """The same with an image that was sent before; to be held at once. Raises ApiError."""
        image = self.images.find(identifier)
        if image is None:
            raise ApiError("image_not_found", IMAGE_GONE, param="image")
        return replace(
            body,
            media_type=image.media_type,
            offset=image.offset,
            length=image.length,
            inline=b"",
            buffer=image.buffer,
        )

    async def _resolve(self, job: Job, body: Body) -> None:
        """Hand over what a chat refers to. What isn't there the worker names, with its place."""
        identifiers = await references_in(body.image)
        if len(identifiers) > REFERENCES_LIMIT:
            text = f"a request may refer to {REFERENCES_LIMIT} images"
            raise ApiError("invalid_request", text, param="messages")
        found = [image for one in identifiers if (image := self.images.find(one)) is not None]
        for image in found:
            self.dispatcher.hold(job, image.buffer)
        body.images = tuple(found)

    def _begin(self, key: str, digest: bytes, job: Job, body: Body) -> Attempt[Job]:
        self.dispatcher.start(job, body)  # first: who can't be started is nobody's to join
        job.shared = True
        attempt = self._attempts.begin(key, digest, job, self._loop.time())
        task = self._loop.create_task(self._live(attempt))
        self._living.add(task)
        task.add_done_callback(partial(self._let_go, attempt))
        return attempt

    async def _live(self, attempt: Attempt[Job]) -> None:
        """Stay with a request until its end, whoever leaves meanwhile. Raises ApiError."""
        job = attempt.work
        answer = await asyncio.shield(job.outcome)
        size = len(answer.data) + 4 * job.pieces.characters
        size += answer.output.length if answer.output is not None else 0
        self._attempts.finish(attempt, size, self._loop.time())
        self._alarm.set(self._attempts.next_end)

    def _forget(self) -> None:
        """Forget answers when they are too old, though nobody may come with a key again."""
        self._attempts.forget(self._loop.time())
        self._alarm.set(self._attempts.next_end)

    def _let_go(self, attempt: Attempt[Job], living: asyncio.Task[None]) -> None:
        """Its life has ended, or was cancelled: before its first step, perhaps."""
        self._living.discard(living)
        failure = failure_of(living)
        if failure is not None:
            self._attempts.drop(attempt)
        self.dispatcher.leave(attempt.work, failure)
        if not isinstance(failure, ApiError | asyncio.CancelledError | None):
            raise failure  # a fault of ours: the loop tells of it


async def outcome_of(job: Job) -> Answer:
    """A job's answer, for one of perhaps several callers. Raises ApiError."""
    return await (asyncio.shield(job.outcome) if job.shared else job.outcome)


def key_of(request: BaseRequest) -> str | None:
    """The request's Idempotency-Key, if it has one. Raises ApiError."""
    keys = request.headers.getall("Idempotency-Key", [])
    if len(keys) > 1:
        raise ApiError("invalid_request", "one key a request", param="Idempotency-Key")
    return f"{request.path} {check_key(keys[0])}" if keys else None


async def digest_of(request: BaseRequest, body: Body) -> bytes:
    """A hash over everything that a request says."""
    total = hashlib.sha256()
    for text in (request.path, body.form, body.media_type, body.question or ""):
        total.update(f"{len(text)}:{text}".encode("utf-8", "surrogateescape"))
    await take_in(total, body.image)
    return total.digest()
