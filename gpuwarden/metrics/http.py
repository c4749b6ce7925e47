"""The smallest HTTP that a Prometheus server needs: one page, one answer a connection.

Whoever connects may be slow, wrong or hostile: headers, time and connections are limited, every
refusal is a status and a sentence. The listening address is the socket unit's.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

log = logging.getLogger(__name__)

HEADER_LIMIT_BYTES = 8192  # a Prometheus server sends 300
HEADER_SECONDS = 5.0
ANSWER_SECONDS = 5.0  # for a client to take its answer, and to hang up
CONNECTIONS_LIMIT = 16
DRAIN_LIMIT_BYTES = 65536  # of what is sent and not wanted: it is read, or the answer may be lost
BACKLOG = 16
TEXT = "text/plain; charset=utf-8"
EXPLANATION = "gpuwarden's metrics for Prometheus are at /metrics\n"

Answer = tuple[HTTPStatus, str, bytes]


class RefusedError(Exception):
    """What was sent gets this status, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Server:
    """Answers with a page that is made when it is asked for.

    :param page: the page; OSError and ValueError become a 503 with their text.
    :param content_type: of the page.
    :ivar idle_since: when the last connection came, by the loop's clock.
    """

    def __init__(self, page: Callable[[], bytes], content_type: str) -> None:
        self._page, self._content_type = page, content_type
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], None] = {}
        self.idle_since = 0.0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def start(self, listener: socket.socket) -> None:
        """Serve what connects to a socket that listens already."""
        self.idle_since = asyncio.get_running_loop().time()
        self._server = await asyncio.start_server(
            self._connected, sock=listener, limit=HEADER_LIMIT_BYTES, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Take no more connections, and answer those that are open."""
        if self._server is not None:
            self._server.close()
        if self._open:
            await asyncio.wait(self._open, timeout=ANSWER_SECONDS)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.idle_since = asyncio.get_running_loop().time()
        if len(self._open) >= CONNECTIONS_LIMIT:
            # A scrape takes milliseconds: the oldest is the one that dawdles.
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this as a task"
        self._open[task] = None
        try:
            await self._serve(reader, writer)
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_head = False
        try:
            method, path = await _request(reader)
            is_head = method == "HEAD"
            answer = self._answer(method, path)
        except RefusedError as error:
            answer = _text(error.status, str(error))
        except asyncio.CancelledError:
            _write(writer, _text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"))
            return
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # nobody is there to be answered
        with suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(ANSWER_SECONDS):
                _write(writer, answer, with_body=not is_head)
                await writer.drain()
                await _hang_up(reader, writer)

    def _answer(self, method: str, path: str) -> Answer:
        if method not in {"GET", "HEAD"}:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes GET and HEAD")
        if path == "/":
            return _text(HTTPStatus.OK, EXPLANATION)
        if path != "/metrics":
            raise RefusedError(HTTPStatus.NOT_FOUND, EXPLANATION)
        try:
            return HTTPStatus.OK, self._content_type, self._page()
        except (OSError, ValueError) as error:
            log.exception("the metrics could not be made")
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the metrics could not be made: {error}"
            ) from error


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and path. Raises RefusedError."""
    try:
        async with asyncio.timeout(HEADER_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, f"no complete headers within {HEADER_SECONDS:.0f} s"
        ) from None
    except asyncio.LimitOverrunError:
        raise RefusedError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the headers are over {HEADER_LIMIT_BYTES} bytes",
        ) from None
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[2].startswith("HTTP/1."):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "this is no HTTP/1 request")
    return words[0], words[1].partition("?")[0]


def _text(status: HTTPStatus, text: str) -> Answer:
    return status, TEXT, f"{text.rstrip()}\n".encode("utf-8", "replace")


def _write(writer: asyncio.StreamWriter, answer: Answer, *, with_body: bool = True) -> None:
    status, content_type, body = answer
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\n"
        f"{_more(status)}Connection: close\r\n\r\n"
    )
    writer.write(head.encode("ascii") + (body if with_body else b""))


def _more(status: HTTPStatus) -> str:
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return "Allow: GET, HEAD\r\n"
    return "Retry-After: 1\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else ""


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close once the client has read: what it sent beside would else make a reset of the end."""
    writer.write_eof()
    left = DRAIN_LIMIT_BYTES
    while left > 0 and (read := await reader.read(left)):
        left -= len(read)
