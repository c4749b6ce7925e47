# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: routes, the checks that every request passes, errors as JSON."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web import BaseRequest, Response, StreamResponse

from gpuwarden.gateway.access import Access, check_caller
from gpuwarden.gateway.admission import check_framing, check_size
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.takeover import was_taken_over
from gpuwarden.worker.compact import compact_json
from gpuwarden.worker.faults import location

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]

NAMED = "/{id}"
IDENTIFIER = web.RequestKey("identifier", str)  # what stands there
ROUTE = web.RequestKey("route", str)  # the path as it was added
OTHER = "other"


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
            self.check(request)
            response = await self._find(request)(request)
        except ApiError as error:
            response = error_response(error)
        if was_taken_over(request) or not request.content.is_eof():
            response.force_close()
        self.on_response(request.get(ROUTE, OTHER), response.status)
        return response

    def check(self, request: BaseRequest) -> None:
        """What every request has to pass. Raises ApiError."""
        check_size(request, self.header_limit_bytes)
        check_framing(request)
        check_caller(request, self.access)

    def _find(self, request: BaseRequest) -> Handler:
        route, methods = request.path, self._handlers.get(request.path)
        if methods is None:
            family, _, name = request.path.rpartition("/")
            route, methods = f"{family}{NAMED}", self._families.get(f"{family}/") if name else None
            request[IDENTIFIER] = name
        if methods is None:
            families = [f"{family}ID" for family in self._families]
            places = ", ".join(sorted([*self._handlers, *families]))
            raise ApiError("not_found", f"there is {places}", param="path")
        if request.method not in methods:
            allow = ", ".join(sorted(methods))
            text = f"allowed: {allow}"
            raise ApiError("method_not_allowed", text, param="method", allow=allow)
        request[ROUTE] = route
        return methods[request.method]


def json_response(content: dict[str, Any], status: int = 200) -> Response:
    """An answer as JSON."""
    return response_of_json(as_json(content), status)


def response_of_json(content: bytes, status: int = 200) -> Response:
    """The same with what is JSON already."""
    return Response(status=status, body=content, content_type="application/json")


def as_json(content: object) -> bytes:
    """JSON, in ASCII alone."""
    return compact_json(content).encode("ascii")


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
    return "unknown" if error is None else location(error)
