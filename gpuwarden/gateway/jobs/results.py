# SPDX-License-Identifier: Apache-2.0
"""``GET /v1/results/{id}``: a finished job's result itself, without its envelope."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from aiohttp.web import BaseRequest, StreamResponse

from gpuwarden.gateway.admission import check_query
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import IDENTIFIER, json_response
from gpuwarden.gateway.jobs.sealed import SealError
from gpuwarden.gateway.jobs.service import Open
from gpuwarden.gateway.jobs.values import JobResult, JobRow, JobStoreError, StoreFullError, is_id
from gpuwarden.gateway.outlet import send
from gpuwarden.gateway.outputs import Output, OutputPool
from gpuwarden.worker.frames import INLINE_LIMIT_BYTES

SLOW = "the job store's disk doesn't answer; what was asked for may be done yet: look again later"
# How long a caller waits for the disk: what takes it longer than the network has for a body, as
# request_timeout_seconds comes, has failed.
PATIENCE_SECONDS = 30.0
NO_SUCH_JOB = "there is no such job: its time is over, or it was deleted"


class ResultEndpoint:
    """Decrypts what a job's result has beside its JSON, and sends it.

    :param pool: room for it until its caller has it.
    """

    def __init__(self, opened: Callable[[], Open], pool: OutputPool) -> None:
        self._opened = opened
        self._pool = pool

    async def show(self, request: BaseRequest) -> StreamResponse:
        """The file that a job's answer is, or the answer as JSON. Its id is the right to ask."""
        opened = self._opened()
        check_query(request, ())
        row = await find_job(opened, request[IDENTIFIER])
        if not row.status.is_final:
            text = "the job is not finished: GET /v1/jobs/ID?wait=60 waits for it"
            raise ApiError("job_unfinished", text, param="id", retry_after_seconds=1)
        async with answering():
            result = await opened.result(row)
        if result is None or not result.ok:
            raise ApiError("not_found", "the job has no result: GET /v1/jobs/ID says why")
        if not result.part:
            return json_response(result.answer or {})
        output = await self.content(opened, row, result)
        try:
            return await send(request, result.media_type, output)
        finally:
            output.destroy()

    async def content(self, opened: Open, row: JobRow, result: JobResult) -> Output:
        """What a result has beside its JSON, decrypted; the caller's to destroy. Raises ApiError.

        It is whole and unaltered, or not sent at all.
        """
        output = self._room(result)
        small = bytearray(0 if output.buffer else result.content_bytes)
        try:
            async with answering():
                await opened.store.content(
                    row.id,
                    lambda length: (
                        output.buffer.view(length, writable=True)
                        if output.buffer
                        else memoryview(small)
                    ),
                )
        except BaseException:
            output.destroy()
            raise
        output.inline = bytes(small)
        return output

    def _room(self, result: JobResult) -> Output:
        output = Output(result.part, result.media_type, result.content_bytes)
        if result.content_bytes > INLINE_LIMIT_BYTES:
            output.buffer = self._pool.make(result.content_bytes)
            if output.buffer is None:
                text = "no room for another result of this size now ([gateway] results_bytes)"
                raise ApiError("unavailable", text, retry_after_seconds=1)
        return output


async def find_job(opened: Open, id: str) -> JobRow:
    """A job by its id. Raises ApiError 404."""
    async with answering():
        return existing(await opened.store.find(id) if is_id(id) else None)


def existing(row: JobRow | None) -> JobRow:
    """A job, if there is one. Raises ApiError 404."""
    if row is None:
        raise ApiError("not_found", NO_SUCH_JOB, param="id")
    return row


@contextlib.asynccontextmanager
async def answering(seconds: float = 0.0) -> AsyncIterator[None]:
    """What a caller waits for: the store's errors as the caller's, and one if its disk hangs.

    :param seconds: what the caller is ready to wait besides.
    """
    with translated():
        try:
            async with asyncio.timeout(PATIENCE_SECONDS + seconds):
                yield
        except TimeoutError:
            raise JobStoreError(SLOW) from None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The store's errors as a caller gets them."""
    try:
        yield
    except FileNotFoundError:
        raise ApiError("not_found", NO_SUCH_JOB, param="id") from None
    except SealError as error:
        text = "the stored result is damaged: submit the image again"
        raise ApiError("result_unreadable", text) from error
    except StoreFullError as error:
        raise ApiError("insufficient_storage", str(error), retry_after_seconds=60) from error
    except JobStoreError as error:
        raise ApiError("jobs_unavailable", str(error), retry_after_seconds=30) from error
