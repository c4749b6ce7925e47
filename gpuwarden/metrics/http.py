# SPDX-License-Identifier: Apache-2.0
"""The page over HTTP, by aiohttp: one answer a connection, and an end for whoever dawdles.

Built on aiohttp's low-level server: a scrape needs no routes, no access log and no error pages.
The listening address is the socket unit's.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web import BaseRequest, Response, StreamResponse

log = logging.getLogger(__name__)

LINE_LIMIT_BYTES = 8190  # of a header; a Prometheus server sends 300 bytes in all
HEADERS_LIMIT = 32
TOO_MANY = "Too many headers"  # how aiohttp begins to say it; a test holds it to that
CONNECTION_SECONDS = 10.0  # from the first byte to the last; a scrape takes milliseconds
CLOSING_SECONDS = 5.0  # for those who are connected when it ends; the unit's TimeoutStopSec is 15
CONNECTIONS_LIMIT = 16
BACKLOG = 16
EXPLANATION = "gpuwarden's metrics for Prometheus are at /metrics"


class Connection(web.RequestHandler):
    """One client's: aiohttp's protocol, with an end, and words for what is no request."""

    __slots__ = ("_end", "_server")

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._end = self._loop.call_later(CONNECTION_SECONDS, self.dismiss)
        self._server.came(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)
        self._server.gone(self)

    def dismiss(self) -> None:
        """End it, wherever it is: who asks in earnest needs milliseconds."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Answer what is no HTTP, or what the page failed on."""
        if isinstance(exc, LineTooLong) or (message or "").startswith(TOO_MANY):
            why = f"a header is over {LINE_LIMIT_BYTES} bytes, or there are over {HEADERS_LIMIT}"
            return _text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, why)
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return _text(HTTPStatus.BAD_REQUEST, "this is no HTTP/1 request")
        log.error("the metrics could not be made", exc_info=exc)
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"the metrics could not be made: {exc}")


class Server(web.Server):
    """Answers with a page that is made when it is asked for. To be made where a loop runs.

    :param page: the page; what it raises becomes a 503 with its text.
    :param content_type: of the page.
    """

    def __init__(self, page: Callable[[], bytes], content_type: str) -> None:
        super().__init__(
            self._answer,
            access_log=None,
            lingering_time=CONNECTION_SECONDS,
            max_line_size=LINE_LIMIT_BYTES,
            max_field_size=LINE_LIMIT_BYTES,
            max_headers=HEADERS_LIMIT,
        )
        self._page, self._content_type = page, content_type
        self._listening: asyncio.Server | None = None
        self._open: dict[Connection, None] = {}  # in the order in which they came
        self._is_empty = asyncio.Event()
        self._came_at = self._loop.time()

    def __call__(self) -> web.RequestHandler:
        """A connection has come."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def is_idle_for(self, seconds: float) -> bool:
        """Whether nobody is connected, nor has been for so long."""
        return not self._open and self._loop.time() - self._came_at >= seconds

    async def start(self, listener: socket.socket) -> None:
        """Serve what connects to a socket that listens already."""
        self._listening = await self._loop.create_server(self, sock=listener, backlog=BACKLOG)

    async def close(self) -> None:
        """Take no more connections, and answer those that are open."""
        if self._listening is not None:
            self._listening.close()
        if self._open:
            self._is_empty.clear()
            with contextlib.suppress(TimeoutError):  # who dawdles is not waited for
                async with asyncio.timeout(CLOSING_SECONDS):
                    await self._is_empty.wait()
        await self.shutdown(0)

    def came(self, connection: Connection) -> None:
        """One more; where they are too many, the oldest has to go."""
        self._came_at = self._loop.time()
        if len(self._open) >= CONNECTIONS_LIMIT:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.dismiss()
        self._open[connection] = None

    def gone(self, connection: Connection) -> None:
        """One less."""
        self._open.pop(connection, None)
        if not self._open:
            self._is_empty.set()

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        if request.method not in {"GET", "HEAD"}:
            why = f"{request.path} takes GET and HEAD"
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, why, Allow="GET, HEAD")
        if request.path == "/":
            return _text(HTTPStatus.OK, EXPLANATION)
        if request.path != "/metrics":
            return _text(HTTPStatus.NOT_FOUND, EXPLANATION)
        return _response(HTTPStatus.OK, self._page(), {"Content-Type": self._content_type})


def _text(status: HTTPStatus, text: str, **headers: str) -> Response:
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    content = f"{text}\n".encode("utf-8", "replace")
    return _response(status, content, {"Content-Type": "text/plain; charset=utf-8", **headers})


def _response(status: HTTPStatus, content: bytes, headers: dict[str, str]) -> Response:
    same = {"Server": "gpuwarden", "X-Content-Type-Options": "nosniff"}
    response = Response(status=status, body=content, headers={**headers, **same})
    response.force_close()
    return response
