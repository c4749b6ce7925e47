"""The HTTP server: routes, the checks that every request passes, errors as JSON.

Built on aiohttp's low-level server, so that nothing writes an access log or an error page, and no
text of a request reaches a log.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web import BaseRequest, Response, StreamResponse

from gpuwarden.gateway.access import Access, check_caller
from gpuwarden.gateway.admission import check_size
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.takeover import was_taken_over

log = logging.getLogger(__name__)

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]

NAMED = "/{id}"
IDENTIFIER = web.RequestKey("identifier", str)  # what stands there
ROUTE = web.RequestKey("route", str)  # the path as it was added
OTHER = "other"
LINE_LIMIT_BYTES = 8190
IDLE_SECONDS = 75.0  # also how long a client may take over the headers of a later request
HEADERS_SECONDS = 20.0  # for the first ones of a connection
CONNECTIONS_LIMIT = 2000  # an eighth of the unit's descriptors; the workers' buffers need some
UNREAD_MILLISECONDS = 30_000  # then a client that takes nothing of its answer is hung up on
LINGER_SECONDS = 10.0  # a refused upload is read and dropped, so that the client sees the refusal


class JsonRequestHandler(web.RequestHandler):
    """aiohttp's protocol, with its own errors in our form, and an end for slow clients."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come: its first headers are due, and its reading of answers is watched."""
        super().connection_made(transport)
        if self._manager is None or not isinstance(transport, asyncio.Transport):
            return
        if len(self._manager.connections) > CONNECTIONS_LIMIT:
            transport.abort()
            return
        watch_reading(transport)
        self._loop.call_later(HEADERS_SECONDS, self._expect_headers, transport)

    def _expect_headers(self, transport: asyncio.Transport) -> None:
        if self._request_count == 0:
            transport.abort()

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
        if status < 500:
            error = ApiError("invalid_request", "the request is not well-formed HTTP")
        else:
            log.error("a handler failed: %s", where(exc))
            error = ApiError("internal_error", "the service failed; its journal says where")
        response = error_response(error)
        response.force_close()
        return response


class Server(web.Server):
    """Makes our protocol for each connection."""

    def __call__(self) -> web.RequestHandler:
        """A connection has come."""
        return JsonRequestHandler(self, loop=self._loop, **self._kwargs)


class Routes:
    """Which handler answers what, after the checks that all share.

    :param header_limit_bytes: request line and headers together.
    :ivar access: who may ask.
    :ivar on_response: told of each answer: its route (not its path) and status.
    """

    def __init__(self, header_limit_bytes: int, access: Access | None = None) -> None:
        self.header_limit_bytes = header_limit_bytes
        self.access = access or Access()
        self.on_response: Callable[[str, int], None] = lambda route, status: None
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._families: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Answer ``method`` on ``path``; GET answers HEAD too.

        A path that ends in ``/{id}`` stands for all with one more name in its place, which the
        handler finds as ``request[IDENTIFIER]``.
        """
        table = self._families if path.endswith(NAMED) else self._handlers
        methods = table.setdefault(path.removesuffix("{id}"), {})
        methods[method] = handler
        if method == "GET":
            methods["HEAD"] = handler

    def known(self) -> set[tuple[str, str]]:
        """All methods and paths, but HEAD."""
        tables = [
            *self._handlers.items(),
            *((f"{one}{{id}}", m) for one, m in self._families.items()),
        ]
        return {
            (method, path) for path, methods in tables for method in methods if method != "HEAD"
        }

    async def __call__(self, request: BaseRequest) -> StreamResponse:
        """Answer one request."""
        try:
            check_size(request, self.header_limit_bytes)
            check_caller(request, self.access)
            response = await self._find(request)(request)
        except ApiError as error:
            response = error_response(error)
        if was_taken_over(request) or not request.content.is_eof():
            response.force_close()
        self.on_response(request.get(ROUTE, OTHER), response.status)
        return response

    def _find(self, request: BaseRequest) -> Handler:
        route, methods = request.path, self._handlers.get(request.path)
        if methods is None:
            family, _, name = request.path.rpartition("/")
            route, methods = f"{family}{NAMED}", self._families.get(f"{family}/") if name else None
            request[IDENTIFIER] = name
        if methods is None:
            families = [f"{family}ID" for family in self._families]
            raise ApiError(
                "not_found", f"there is {', '.join(sorted([*self._handlers, *families]))}"
            )
        if request.method not in methods:
            allow = ", ".join(sorted(methods))
            raise ApiError("method_not_allowed", f"allowed: {allow}", allow=allow)
        request[ROUTE] = route
        return methods[request.method]


def watch_reading(transport: asyncio.Transport) -> None:
    """Have the kernel end a connection whose peer acknowledges or reads nothing for long."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MILLISECONDS)


def make_server(routes: Routes) -> Server:
    """The server for our routes, with the limits of a connection."""
    line = min(LINE_LIMIT_BYTES, routes.header_limit_bytes)
    return Server(
        routes,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
        max_line_size=line,
        max_field_size=line,
    )


def json_response(content: dict[str, Any], status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(status=status, body=as_json(content), content_type="application/json")


def as_json(content: object) -> bytes:
    """JSON, in ASCII alone."""
    return _encode(content).encode("ascii")


def error_response(error: ApiError) -> Response:
    """An error as JSON."""
    return Response(
        status=error.status,
        body=error.body(),
        headers=error.headers(),
        content_type="application/json",
    )


def where(error: BaseException | None) -> str:
    """Type and place of an exception, without its text, which may quote a request."""
    if error is None:
        return "unknown"
    trace, place = error.__traceback__, "?"
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"
