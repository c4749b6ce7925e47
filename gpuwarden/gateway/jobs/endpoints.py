# SPDX-License-Identifier: Apache-2.0
"""``/v1/jobs``: submit, look, list, change, delete."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from aiohttp.web import BaseRequest, Response, StreamResponse

from gpuwarden.gateway.access import require_key
from gpuwarden.gateway.admission import Upload, check_encoding, check_query, examine_job
from gpuwarden.gateway.body import Body, Room
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import IDENTIFIER, Handler, json_response
from gpuwarden.gateway.idempotency import check_key
from gpuwarden.gateway.intake import ACCEPTED, Intake
from gpuwarden.gateway.jobs.repeats import check_digest, check_same, told_digest
from gpuwarden.gateway.jobs.results import ResultEndpoint, answering, existing, find_job, translated
from gpuwarden.gateway.jobs.service import Jobs, Open
from gpuwarden.gateway.jobs.values import (
    PAGE,
    PAGE_LIMIT,
    PLACE_DIGITS,
    PRIORITY_HIGHEST,
    PRIORITY_LOWEST,
    SHOWN,
    WAIT_LIMIT_SECONDS,
    JobRow,
    JobStatus,
    NewJob,
)
from gpuwarden.gateway.jobs.views import job_document
from gpuwarden.gateway.outlet import send_within
from gpuwarden.gateway.smallbody import read_small
from gpuwarden.worker.outputs import FILE


@dataclass(frozen=True)
class Named:
    """What the headers say of a submission: its key, hashed, and the image's SHA-256.

    :ivar is_known: whether a job came under that key before.
    """

    key: bytes | None
    digest: bytes | None
    is_known: bool = False


class JobEndpoints:
    """The handlers, over one job service."""

    def __init__(self, jobs: Jobs, intake: Intake) -> None:
        self._jobs = jobs
        self._intake = intake
        self._dispatcher = intake.dispatcher
        self._results = ResultEndpoint(self._opened, self._dispatcher.lending.pool)

    @property
    def handlers(self) -> dict[str, Handler]:
        """By the name of the operation."""
        return {
            "submitJob": self.submit,
            "listJobs": self.list,
            "job": self.show,
            "jobResult": self._results.show,
            "changeJob": self.change,
            "deleteJob": self.delete,
        }

    async def submit(self, request: BaseRequest) -> StreamResponse:
        """Keep an image and its question until a worker has answered."""
        opened = self._opened()
        upload = examine_job(request, self._dispatcher.settings)
        priority_of(request, {})  # what the query says of it is known before the body is
        key, digest = idempotency_key(request), told_digest(request, upload)
        named = Named(None if key is None else opened.store.key.digest(key.encode()), digest)
        async with answering():
            known = await find_known(opened, named)
        if known is not None and digest is not None:
            check_same(known, opened.store.asked(digest, upload.media_type, upload.question))
            request[ACCEPTED] = True
            return await self._answer(request, opened, known, status=200)
        self._intake.check_room(is_new=known is None)
        named = replace(named, is_known=known is not None)
        with contextlib.ExitStack() as held:
            if not named.is_known:
                with translated():
                    held.enter_context(opened.store.promised(upload.length or 0))
            row, new = await self._take(opened, request, upload, named, held)
        request[ACCEPTED] = True
        return await self._answer(request, opened, row, status=202 if new else 200)

    async def show(self, request: BaseRequest) -> StreamResponse:
        """How a job stands, and its result once it has one; with ``wait`` at its end."""
        opened = self._opened()
        check_query(request, ("wait",))
        row = await find_job(opened, request[IDENTIFIER])
        seconds = number_of(request, "wait", 0, 0, WAIT_LIMIT_SECONDS)
        if seconds and not row.status.is_final:
            async with answering(seconds):
                row = existing(await opened.until_finished(row.id, seconds))
        return await self._answer(request, opened, row, status=200)

    async def list(self, request: BaseRequest) -> Response:
        """All jobs in the order of their acceptance, a page at a time."""
        require_key(request)
        opened = self._opened()
        check_query(request, ("status", "limit", "after"))
        statuses = statuses_of(request)
        limit = number_of(request, "limit", PAGE, 1, PAGE_LIMIT)
        after = await sequence_of(opened, request.query.get("after", "0"))
        async with answering():
            at_work = opened.feeder.at_work()
            found = await opened.store.page(statuses, after, limit + 1, at_work)
        documents = [job_document(row, at_work.get(row.id)) for row in found[:limit]]
        counts = opened.counts()
        content = {
            "object": "list",
            "data": documents,
            "has_more": len(found) > limit,
            "next": str(found[limit - 1].sequence) if len(found) > limit else None,
            "counts": {status.value: counts[status] for status in SHOWN},
        }
        return json_response(content)

    async def change(self, request: BaseRequest) -> StreamResponse:
        """Cancel a job: ``{"status": "cancelled"}``; what it had of an image is destroyed."""
        require_key(request)
        opened = self._opened()
        check_query(request, ())
        row = await find_job(opened, request[IDENTIFIER])
        if await change_of(request) != {"status": JobStatus.CANCELLED.value}:
            raise ApiError(
                "invalid_request", 'what can be changed is {"status": "cancelled"}', param="status"
            )
        async with answering():
            if not await opened.cancel(row.id):
                raise ApiError("job_finished", "the job is finished already", param="id")
        return await self._answer(
            request, opened, await find_job(opened, request[IDENTIFIER]), status=200
        )

    async def delete(self, request: BaseRequest) -> Response:
        """Destroy a job, its image and its result, whatever its state."""
        require_key(request)
        opened = self._opened()
        check_query(request, ())
        row = await find_job(opened, request[IDENTIFIER])
        async with answering():
            await opened.delete(row.id)
        return json_response({"id": row.id, "object": "job", "deleted": True})

    async def _take(
        self,
        opened: Open,
        request: BaseRequest,
        upload: Upload,
        named: Named,
        held: contextlib.ExitStack,
    ) -> tuple[JobRow, bool]:
        """Keep what comes, or a copy of an image that was sent before."""
        if upload.image is not None:
            body = self._intake.referred(upload.image, Body("", upload.question, 0, 0))
            return await self._kept(opened, request, upload, body, named, held)
        settings, pool = self._dispatcher.settings, self._dispatcher.pool
        room = Room(pool, settings.upload_limit_bytes, lambda size: None)
        held.enter_context(opened.memory.for_upload(upload.length or settings.body_limit_bytes))
        try:
            room.reserve(upload.length or 0)
            body = await self._intake.upload(request, upload, room)
            if body.reference is not None:
                body = self._intake.referred(body.reference, body)
            return await self._kept(opened, request, upload, body, named, held)
        finally:
            room.free()

    async def _kept(
        self,
        opened: Open,
        request: BaseRequest,
        upload: Upload,
        body: Body,
        named: Named,
        held: contextlib.ExitStack,
    ) -> tuple[JobRow, bool]:
        """Keep it even if the caller leaves now: the file is being written from the buffer.

        What is ``held`` for it, in memory and on disk, goes when that is done, not before.
        """
        buffer, pool = body.buffer, self._dispatcher.pool
        if buffer is not None:
            pool.hold(buffer)
            held.callback(pool.release, buffer)
        taken = held.pop_all()

        async def keep() -> tuple[JobRow, bool]:
            with taken:
                return await self._keep(opened, request, upload, body, named)

        async with answering():
            return await opened.errands.run(keep())

    async def _keep(
        self,
        opened: Open,
        request: BaseRequest,
        upload: Upload,
        body: Body,
        named: Named,
    ) -> tuple[JobRow, bool]:
        priority = priority_of(request, body.fields)
        with translated():
            asked = await self._asked(opened, body, named)
            if (known := await find_known(opened, named)) is not None:
                check_same(known, asked)
                return known, False
            job = NewJob(
                content=body.image,
                media_type=body.media_type,
                question=body.question,
                priority=priority,
                idempotency=named.key,
                request=asked,
            )
            kept_out = await opened.store.is_set_aside(job.content, job.question)
            if kept_out or await self._dispatcher.set_aside.holds(body):
                raise ApiError(
                    "image_set_aside",
                    "this image with this question has killed workers, each time alone: it is"
                    " not taken again for now",
                    param="image",
                )
            # Larger than could be known, or no repeat any more: the job went meanwhile.
            unpromised = named.is_known or len(job.content) > (upload.length or 0)
            promised = opened.store.promised(len(job.content))
            with promised if unpromised else contextlib.nullcontext():
                row, new = await opened.store.submit(job)
            check_same(row, asked)  # two may have come at once
            return row, new

    async def _asked(self, opened: Open, body: Body, named: Named) -> bytes | None:
        """What a repeat is known by; None where nothing was named that it would be known under."""
        if named.key is None and named.digest is None:
            return None
        found = await opened.store.sha256(body.image)
        check_digest(named.digest, found)
        return opened.store.asked(found, body.media_type, body.question)

    def _opened(self) -> Open:
        if self._jobs.opened is None:
            raise ApiError("jobs_unavailable", self._jobs.problem, retry_after_seconds=30)
        return self._jobs.opened

    async def _answer(
        self, request: BaseRequest, opened: Open, row: JobRow, status: int
    ) -> StreamResponse:
        async with answering():
            result = await opened.result(row)
            document = await opened.document(row, result)
        location = f"/v1/jobs/{row.id}"
        if result is not None and result.part not in ("", FILE):
            output = await self._results.content(opened, row, result)
            try:
                return await send_within(request, document, output, {"Location": location})
            finally:
                output.destroy()
        response = json_response(document, status=status)
        response.headers["Location"] = location
        if not row.status.is_final:
            response.headers["Retry-After"] = "1"
        return response


async def find_known(opened: Open, named: Named) -> JobRow | None:
    """The job that came under the same key before."""
    return None if named.key is None else await opened.store.find_by_key(named.key)


def idempotency_key(request: BaseRequest) -> str | None:
    """The request's Idempotency-Key, if it has one. Raises ApiError."""
    keys = request.headers.getall("Idempotency-Key", [])
    if len(keys) > 1:
        raise ApiError("invalid_request", "one key a request", param="Idempotency-Key")
    return check_key(keys[0]) if keys else None


def priority_of(request: BaseRequest, fields: Mapping[str, str]) -> int:
    """The job's priority, from the query or a form's ``fields``. Raises ApiError."""
    given = request.query.getall("priority", [])
    given += [fields["priority"]] if "priority" in fields else []
    text = given[0].strip() if given else "0"
    digits = text.removeprefix("-")
    if len(given) < 2 and digits.isdecimal() and digits.isascii() and len(digits) < 4:
        priority = int(text)
        if PRIORITY_LOWEST <= priority <= PRIORITY_HIGHEST:
            return priority
    raise ApiError(
        "invalid_request",
        f"priority is one whole number from {PRIORITY_LOWEST} to {PRIORITY_HIGHEST}, the larger"
        " first",
        param="priority",
    )


def number_of(request: BaseRequest, name: str, default: int, least: int, most: int) -> int:
    """A number in the query. Raises ApiError."""
    text = request.query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdecimal() and len(text) < 6 and least <= int(text) <= most:
        return int(text)
    raise ApiError("invalid_request", f"{name} is a whole number, {least} to {most}", param=name)


async def sequence_of(opened: Open, after: str) -> int:
    """Behind which place of the list a page begins: a page's ``next``, or a job's id.

    A job may have gone meanwhile, a place never does. Raises ApiError.
    """
    if after.isascii() and after.isdecimal() and len(after) <= PLACE_DIGITS:
        return int(after)
    return (await find_job(opened, after)).sequence


def statuses_of(request: BaseRequest) -> list[JobStatus]:
    """Which jobs are asked for. Raises ApiError."""
    given = request.query.getall("status", [])
    known = [status.value for status in SHOWN]
    if any(status not in known for status in given):
        raise ApiError("invalid_request", f"status is one of {', '.join(known)}", param="status")
    return [JobStatus(status) for status in given or known]


async def change_of(request: BaseRequest) -> object:
    """What is to be changed. Raises ApiError."""
    check_encoding(request)
    try:
        return json.loads(await read_small(request))
    except (ValueError, RecursionError):
        raise ApiError("invalid_request", "the body is not JSON", param="body") from None
