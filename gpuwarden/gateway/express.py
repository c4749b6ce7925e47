# SPDX-License-Identifier: Apache-2.0
"""The short way of a small request that has come whole: the same checks, but no task.

aiohttp makes a task, a stream and a response for each request; with a body of a few hundred bytes
they cost more than everything that is done with it here. ``POST /predict`` whose body came with its
headers, and alone on its connection, is answered without them: aiohttp parses it, the same
functions check and admit it, and its answer is written when the worker's RESULT comes. Whatever is
unusual about a request, or about its answer, goes aiohttp's way.

Relies on names of aiohttp's that are its own (``_parser``, ``_waiter``, ``_messages``,
``_request_in_progress``, ``_handler_waiter``): tests hold every one of them to what is meant here.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, RawRequestMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web import BaseRequest
from aiohttp.web_response import REASON_PHRASES

from gpuwarden.gateway.admission import Upload, examine
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.heads import LIMIT_BYTES, Known, Sieve
from gpuwarden.gateway.http import OTHER, ROUTE, Routes, where
from gpuwarden.gateway.intake import Intake
from gpuwarden.gateway.job import Answer, Job, nobody
from gpuwarden.gateway.predict import PATH, prediction_json, respond
from gpuwarden.gateway.tasks import failure_of
from gpuwarden.worker.frames import INLINE_LIMIT_BYTES

log = logging.getLogger(__name__)

CLOSING = "Connection: close\r\n"
JSON_OF_LENGTH = b"Content-Type: application/json\r\nContent-Length: "
HELD_BYTES = 64 << 10  # that came before the answer has gone; more stays in the kernel
UNUSUAL_HEADERS = ("Expect", "Idempotency-Key", "Content-Encoding")
INTERNAL = ApiError("internal_error", "the service failed; its journal says where")


class Express:
    """What takes the short way, and the steps of it that are no connection's own."""

    def __init__(self, routes: Routes, intake: Intake) -> None:
        self._routes = routes
        self._intake = intake

    def takes(self, message: RawRequestMessage) -> bool:
        """Whether nothing about a request's head is unusual."""
        if message.method != "POST" or message.path.partition("?")[0] != PATH:
            return False
        headers = message.headers
        length = headers.get("Content-Length", "")
        return (
            message.version == HttpVersion11
            and not (message.should_close or message.upgrade or message.chunked)
            and len(length) <= len(str(INLINE_LIMIT_BYTES))
            and (not length or int(length) <= INLINE_LIMIT_BYTES)
            and not headers.get("Content-Type", "").lower().startswith("multipart/")
            and not any(name in headers for name in UNUSUAL_HEADERS)
        )

    @property
    def has_to_hash(self) -> bool:
        """Whether bodies are compared with what was set aside, which takes several turns."""
        return bool(self._intake.dispatcher.set_aside)

    @property
    def rules(self) -> tuple[object, ...]:
        """What the checks of a head go by, besides the head and its connection."""
        routes = self._routes
        return routes.access, routes.header_limit_bytes, self._intake.dispatcher.settings

    def check(self, request: BaseRequest) -> Upload:
        """What a request is to bring, by its head. Raises ApiError."""
        self._routes.check(request)
        request[ROUTE] = PATH
        try:
            return self._intake.examined(request, examine)[1]
        except ApiError:
            self._intake.dispatcher.reject()
            raise

    def begin(self, upload: Upload, content: bytes) -> Job:
        """Admit a request and have a worker answer it. Raises ApiError."""
        return self._intake.begin(upload, content)

    def end(self, job: Job, failure: BaseException | None) -> None:
        """The caller has what there is to have, or has left."""
        self._intake.leave(job, failure)

    def responded(self, route: str, status: int) -> None:
        """An answer has gone out."""
        self._routes.on_response(route, status)


class ExpressHandler(web.RequestHandler):
    """aiohttp's protocol, with the short way beside its own.

    :ivar job: what is being answered on the short way.
    :ivar taken: how many requests were.
    """

    def __init__(self, server: web.Server, express: Express, **options: Any) -> None:
        super().__init__(server, **options)
        self._express = express
        self._parser: Any = Sieve(self._parser, self._take, self.broken_body)
        self.job: Job | None = None
        self.taken = 0
        self._is_taking = False
        self._known: Known | None = None
        self._message: RawRequestMessage | None = None  # what is being answered
        self._route = OTHER
        self._held = bytearray()
        self._sending: asyncio.Task[int] | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        self._held.clear()
        super().connection_lost(exc)
        if self._sending is not None:
            self._sending.cancel()
        elif self.job is not None:
            self._end(ConnectionResetError("the client left"))

    def broken_body(self, error: HttpProcessingError) -> ApiError:
        """The error for a body whose chunks can't be read, or what follows them."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Parse what has come, once the answer before it has gone; at the end, bodies alone."""
        if self.job is None and not self._held:
            if self._close or self._force_close:
                # aiohttp would drop it, and who was accepted would wait for its body in vain.
                self._parser.feed_rest(data)
            elif not self._take_again(data):
                super().data_received(data)
                if self._parser.is_broken:
                    self.close()  # when that request has been refused
            return
        self._held += data  # in its order, also where what came before is about to be parsed
        if len(self._held) > HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def _process_keepalive(self) -> None:
        """Close an idle connection; one whose answer is on its way is none."""
        if self.job is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None
            self._stay()

    def _take_again(self, data: bytes) -> bool:
        """Answer a request that has the head of the one before it, if it is for that."""
        known = self._known
        if known is None or not (known.begins(data) and self._parser.is_between and self._is_free):
            return False
        if known.rules != self._express.rules or self._express.has_to_hash:
            return False
        self.taken += 1
        self._begin(known, data[len(known.data) :])
        return True

    def _take(self, message: Any, payload: Any, data: bytes) -> bool:
        """Answer a message on the short way, if it is for that.

        :param data: its head as it came, where that is certain.
        """
        if not self._is_free or not isinstance(message, RawRequestMessage):
            return False
        if not payload.is_eof() or payload.exception() is not None or self._express.has_to_hash:
            return False
        head = (message.method, message.path, message.version, message.raw_headers)
        known = self._known
        if known is None or known.head != head or known.rules != self._express.rules:
            if not self._express.takes(message):
                return False
            known = None
        self.taken += 1
        self._is_taking = True  # reading the body asks for more, of which there is none
        try:
            content = payload.read_nowait()
            known = known or self._check(head, message, payload, data)
        except Exception as error:  # noqa: BLE001 - as aiohttp does: it is this request's end alone
            self._refuse_for(error)
        else:
            self._begin(known, content)
        finally:
            self._is_taking = False
        return True

    @property
    def _is_free(self) -> bool:
        """Whether nothing is on its way here, in either direction."""
        waiter = self._waiter
        is_waiting = waiter is not None and not waiter.done() and not self._upgraded
        return is_waiting and not (
            self._messages or self._paused or self._close or self._force_close
        )

    def _check(
        self, head: tuple[object, ...], message: RawRequestMessage, payload: Any, data: bytes
    ) -> Known:
        """Check a head that is not known. Raises ApiError."""
        request = self._request_of(message, payload)
        try:
            upload = self._express.check(request)
        finally:
            self._route = request.get(ROUTE, OTHER)
        kept = data if len(data) <= LIMIT_BYTES else b""
        size = len(data) + (upload.length or 0) if kept else -1
        self._known = Known(head, self._express.rules, upload, message, kept, size)
        return self._known

    def _begin(self, known: Known, content: bytes) -> None:
        """Have a worker answer a request; its answer may be there at once."""
        try:
            self.job = job = self._express.begin(known.upload, content)
            self._message, self._route = known.message, PATH
            self._request_in_progress = True
            job.on_end = self._on_outcome
            if job.is_over:
                self._on_outcome(job)
        except Exception as error:  # noqa: BLE001 - as aiohttp does: it is this request's end alone
            self._refuse_for(error)

    def _request_of(self, message: Any, payload: Any) -> BaseRequest:
        factory, task = self._request_factory, self._task_handler
        if factory is None or task is None:
            raise ConnectionResetError("the client left")
        return factory(message, payload, self, StreamWriter(self, self._loop), task)

    def _on_outcome(self, job: Job) -> None:
        if self.job is not job:
            return  # the client has left
        try:
            self._answer(job)
        except Exception as error:  # noqa: BLE001 - who calls this is busy with a worker
            if self.job is job:  # nothing has been written yet
                self._end(error)
                self._refuse_for(error)
            else:
                log.error("a handler failed: %s", where(error))
                self.force_close()

    def _answer(self, job: Job) -> None:
        """Answer with the outcome that is there."""
        answer, message = job.answer, self._message
        if answer is None:
            error = job.error or INTERNAL
            self._end(error)
            self._refuse_for(error)
        elif answer.output is not None:
            request = self._request_of(message, EMPTY_PAYLOAD)  # it has been read
            self._sending = self._loop.create_task(self._send(request, job, answer))
            self._sending.add_done_callback(self._on_sent)
        else:
            content = prediction_json(job, answer, self._loop.time())
            self._put(200, content)  # first: the client goes on meanwhile
            self._end(None)
            self._written(200)

    async def _send(self, request: BaseRequest, job: Job, answer: Answer) -> int:
        """Answer with what is larger or other than JSON, in aiohttp's way; the status."""
        response = await respond(request, job, answer)
        await self.finish_response(request, response, None)
        return response.status

    def _on_sent(self, sending: asyncio.Task[int]) -> None:
        """Such an answer has gone out, or was cancelled: before its first step, perhaps."""
        self._sending = None
        failure = failure_of(sending)
        self._end(failure)
        if failure is None:
            self._written(sending.result())
        elif not sending.cancelled():  # the answer has begun: the connection ends
            if not isinstance(failure, ConnectionError):
                log.error("a handler failed: %s", where(failure))
            self.force_close()

    def _refuse_for(self, error: BaseException) -> None:
        if not isinstance(error, ApiError):
            log.error("a handler failed: %s", where(error))
            error = INTERNAL
        self._write(error.status, error.body(), error.headers())

    def _end(self, failure: BaseException | None) -> None:
        """Leave the request; who waits for this connection's work to end is told."""
        job, self.job, self._message = self.job, None, None
        if job is not None:
            job.on_end = nobody
            self._express.end(job, failure)
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)

    def _write(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._put(status, body, headers)
        self._written(status)

    def _put(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer; ``_written`` belongs to it."""
        if self.transport is not None:
            closes = self._close or self._force_close
            self.transport.write(head_of(status, len(body), headers or {}, closes) + body)

    def _written(self, status: int) -> None:
        self._express.responded(self._route, status)
        if self.transport is None:
            return
        if self._close or self._force_close:
            self.transport.close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Wait for the next request, which may be here already."""
        self._stay()
        if self._held:
            self._loop.call_soon(self._release)

    def _stay(self) -> None:
        """Close the connection when nothing has come for so long."""
        close_time = self._loop.time() + self._keepalive_timeout
        self._next_keepalive_close_time = close_time
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)

    def _release(self) -> None:
        if self.job is not None or self.transport is None:
            return
        held, self._held = bytes(self._held), bytearray()
        self.transport.resume_reading()
        self.data_received(held)


def head_of(status: int, length: int, headers: Mapping[str, str], closes: bool) -> bytes:
    """Status line and headers of an answer in JSON, as aiohttp writes them."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items()) if headers else ""
    end = end_of_head(rfc822_formatted_time(), closes)
    return b"%b%b%b%d%b" % (first_line(status), more.encode("ascii"), JSON_OF_LENGTH, length, end)


@lru_cache
def first_line(status: int) -> bytes:
    """A head's status line."""
    return f"HTTP/1.1 {status} {REASON_PHRASES[status]}\r\n".encode("ascii")


@lru_cache(maxsize=4)
def end_of_head(date: str, closes: bool) -> bytes:
    """A head's end, from behind its length on: the same for a whole second."""
    closing = CLOSING if closes else ""
    return f"\r\nDate: {date}\r\nServer: {SERVER_SOFTWARE}\r\n{closing}\r\n".encode("ascii")
