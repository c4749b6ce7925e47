# SPDX-License-Identifier: Apache-2.0
"""One client's connection: what its headers, its silence and its reading may take.

Built on aiohttp's low-level server, so that nothing writes an access log or an error page, and no
text of a request reaches a log.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web import BaseRequest, StreamResponse

from gpuwarden.gateway.body import broken_off
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.express import Express, ExpressHandler
from gpuwarden.gateway.http import OTHER, ROUTE, Routes, error_response, where
from gpuwarden.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

READ_BYTES = 96 << 10  # a whole small request; malloc maps what is over 128 KiB
LINE_LIMIT_BYTES = 8190
MANY = 128  # headers of one request: web servers commonly take 100
TOO_MANY = "Too many headers"  # how aiohttp begins to say it; a test holds it to that
LINGER_SECONDS = 10.0  # a refused upload is read and dropped, so that the client sees the refusal
REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large"}


class JsonRequestHandler(ExpressHandler):
    """aiohttp's protocol, with its own errors in our form, and an end for slow clients."""

    def __init__(
        self, server: "Server", express: Express, settings: GatewaySettings, **options: Any
    ) -> None:
        super().__init__(server, express, **options)
        self._settings = settings
        self._head_bytes = 0  # of a request whose headers have not ended
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come: its first headers are due, and its reading of answers is watched."""
        super().connection_made(transport)
        if self._manager is None or not isinstance(transport, asyncio.Transport):
            return
        if len(self._manager.connections) > self._settings.connections_limit:
            transport.abort()
            return
        watch_reading(transport, self._settings.reader_timeout_seconds)
        read_little(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless these headers were refused already."""
        if self._is_refused or self._is_taking:
            return
        taken = self.taken
        super().data_received(data)
        # Between requests nobody else bounds what comes: the parser waits for the headers to end.
        waiter = self._waiter
        if waiter is None or waiter.done() or self.job or self.taken != taken:
            self._stop_waiting()
            return
        self._head_bytes += len(data)
        if self._head_timer is None:
            self._await_head()
        if self._head_bytes > self._settings.header_limit_bytes:
            self._refuse(headers_too_large(self._settings.header_limit_bytes))

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Answer what is not HTTP, or what a handler failed on; quotes nothing of the request."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        if isinstance(exc, ConnectionError):
            raise exc  # the client left: there is nobody to answer
        if is_too_large(exc, message):
            error = headers_too_large(self._settings.header_limit_bytes)
        elif status < 500:
            text = "the request is not well-formed HTTP"
            error = ApiError("invalid_request", text, param="headers")
        else:
            log.error("a handler failed: %s", where(exc))
            error = ApiError("internal_error", "the service failed; its journal says where")
        response = error_response(error)
        response.force_close()
        self._express.responded(request.get(ROUTE, OTHER), error.status)
        return response

    def broken_body(self, error: HttpProcessingError) -> ApiError:
        """The error for a body whose chunks can't be read, or the headers behind them."""
        if is_too_large(error, error.message):
            return headers_too_large(self._settings.header_limit_bytes)
        return broken_off()

    def _await_head(self) -> None:
        seconds = self._settings.header_timeout_seconds
        self._head_timer = self._loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.transport is None:
            return
        if self._head_bytes:
            text = "the headers did not come within the time limit"
            self._refuse(ApiError("request_timeout", text, param="headers"))
        else:
            self.transport.abort()

    def _refuse(self, error: ApiError) -> None:
        """Answer headers that have no end, and read on for a while: who sends may see it then."""
        self._is_refused = True
        self._stop_waiting()
        self._express.responded(OTHER, error.status)
        if not isinstance(self.transport, asyncio.Transport):
            return
        body = error.body()
        head = (
            f"HTTP/1.1 {error.status} {REASONS[error.status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._loop.call_later(LINGER_SECONDS, self.transport.abort)


class Server(web.Server):
    """Makes our protocol for each connection, with the limits that hold then.

    :param express: answers small requests, past ``routes``.
    :param settings: the settings in use.
    """

    def __init__(
        self, routes: Routes, express: Express, settings: Callable[[], GatewaySettings]
    ) -> None:
        super().__init__(routes, handler_cancellation=True)
        self._express = express
        self._settings = settings

    def __call__(self) -> web.RequestHandler:
        """A connection has come."""
        settings = self._settings()
        line_bytes = min(LINE_LIMIT_BYTES, settings.header_limit_bytes)
        return JsonRequestHandler(
            self,
            self._express,
            settings,
            loop=self._loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=settings.idle_timeout_seconds,
            lingering_time=LINGER_SECONDS,
            max_headers=MANY,
            max_line_size=line_bytes,
            max_field_size=line_bytes,
        )


def is_too_large(error: BaseException | None, message: str | None) -> bool:
    """Whether aiohttp says of headers that they are too long or too many."""
    return isinstance(error, LineTooLong) or (message or "").startswith(TOO_MANY)


def headers_too_large(limit_bytes: int) -> ApiError:
    """The error for headers that don't end."""
    text = f"headers may have {limit_bytes} bytes in all, {LINE_LIMIT_BYTES} each, {MANY} of them"
    return ApiError("headers_too_large", text, param="headers")


def watch_reading(transport: asyncio.Transport, seconds: float) -> None:
    """Have the kernel end a connection whose peer acknowledges or reads nothing for so long."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        milliseconds = int(seconds * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def read_little(transport: asyncio.Transport) -> None:
    """Have asyncio ask the kernel for no more at once than memory is had for without a mapping.

    Its 256 KiB may be mapped, touched and unmapped for each read, however little comes: 12 us.
    """
    if hasattr(transport, "max_size"):
        transport.max_size = READ_BYTES
