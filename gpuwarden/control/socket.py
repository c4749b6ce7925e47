# SPDX-License-Identifier: Apache-2.0
"""Requests between our own processes: one JSON record there, one back, over SOCK_SEQPACKET.

A request is ``{"version": 1, "request": NAME, ...}``; the answer is ``{"version": 1, "answer":
{...}}`` or ``{"version": 1, "error": {"type", "message"}}``. A connection carries one request. The
kernel says who asks (SO_PEERCRED), so nothing needs a password.
"""

import asyncio
import inspect
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

PROTOCOL_VERSION = 1
RECORD_LIMIT_BYTES = 64 * 1024  # far under net.core.wmem_default (208 KiB), so a record always goes
CLIENTS_LIMIT = 16  # answered at once: our own few daemons and the operator's commands
REQUEST_TIMEOUT_SECONDS = 5.0  # for a client to say what it wants, and to take its answer
ACCEPT_RETRY_SECONDS = 0.2  # after a failed accept (no descriptors left), instead of spinning

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid

Document = dict[str, Any]
Handler = Callable[[Document], Document | Awaitable[Document]]

_log = logging.getLogger(__name__)


class ControlError(Exception):
    """A request that was refused or failed; travels over the socket as it is.

    :param kind: ``InvalidArgument``, ``AccessDenied``, ``Busy``, ``Unavailable`` or ``Failed``, as
        on the bus.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ControlUnreachableError(ControlError):
    """Nobody answered: no socket, nobody listening, no right to it, or no answer in time."""

    def __init__(self, message: str, *, denied: bool = False) -> None:
        super().__init__("AccessDenied" if denied else "Unavailable", message)
        self.denied = denied


def ask(path: Path, request: Document, timeout_seconds: float) -> Document:
    """Send a request like ``{"request": "reload"}`` and wait for its answer.

    :param timeout_seconds: for everything together, the work itself included.
    :raises ControlUnreachableError: nobody answered in time.
    :raises ControlError: the request was refused or failed.
    """
    return asyncio.run(ask_async(path, request, timeout_seconds))


async def ask_async(path: Path, request: Document, timeout_seconds: float) -> Document:
    """The same from within a loop."""
    record = _encode({"version": PROTOCOL_VERSION, **request})
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
    try:
        with socket.socket(socket.AF_UNIX, kind) as connection:
            async with asyncio.timeout(timeout_seconds):
                await loop.sock_connect(connection, str(path))
                await loop.sock_sendall(connection, record)
                answer = await loop.sock_recv(connection, RECORD_LIMIT_BYTES + 1)
    except TimeoutError:
        message = f"{path}: no answer within {timeout_seconds:g} s"
        raise ControlUnreachableError(message) from None
    except PermissionError:
        raise ControlUnreachableError(f"{path}: permission denied", denied=True) from None
    except OSError as error:
        raise ControlUnreachableError(f"{path}: {error.strerror}") from error
    if not answer:
        raise ControlUnreachableError(f"{path}: the other side hung up without an answer")
    return _answer_of(_decode(answer))


def _answer_of(document: Document) -> Document:
    error = document.get("error")
    if isinstance(error, dict):
        raise ControlError(str(error.get("type", "Failed")), str(error.get("message", "")))
    answer = document.get("answer")
    if not isinstance(answer, dict):
        raise ControlError("Failed", "the answer is neither an answer nor an error")
    return answer


async def serve(
    listening: socket.socket | Path,
    handlers: Mapping[str, Handler],
    allowed_uids: Collection[int] = (0,),
) -> "ControlServer":
    """Answer requests until the server is closed.

    :param listening: a listening SOCK_SEQPACKET socket (as systemd passes it), or where to make
        one (mode 0600; a dead one in its place is removed).
    :param handlers: by request name. A handler gets the request and returns the answer, or raises
        ControlError; it may be asynchronous and take its time. It runs on if its client leaves.
    :raises OSError: the socket can't be made, or somebody listens there already.
    """
    bound = listening if isinstance(listening, socket.socket) else _listen(listening)
    return ControlServer(bound, handlers, frozenset(allowed_uids))


class ControlServer:
    """A listening control socket; made by :func:`serve`."""

    def __init__(
        self, listening: socket.socket, handlers: Mapping[str, Handler], uids: frozenset[int]
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._handlers = handlers
        self._allowed_uids = uids
        self._clients: set[asyncio.Task[None]] = set()
        self._being_answered = 0
        self._accepting = asyncio.create_task(self._accept(), name="control-accept")

    async def close(self) -> None:
        """Stop listening, cancel what is being answered, and wait until all of it has ended."""
        tasks = [self._accepting, *self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                _log.warning("control socket can't accept: %s", error.strerror)
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            task = asyncio.create_task(self._attend(connection), name="control-client")
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    async def _attend(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            try:
                # Read before anything is refused: closing on an unread record would reset the
                # connection, and the client would never see why.
                async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                    record = await loop.sock_recv(connection, RECORD_LIMIT_BYTES + 1)
                if not record:
                    return
                answer = await self._answer(connection, record)
                async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                    await loop.sock_sendall(connection, answer)
            except TimeoutError:
                _log.warning("control client cut off: silent for %g s", REQUEST_TIMEOUT_SECONDS)
            except OSError as error:
                _log.info("control client left before its answer: %s", error.strerror)

    async def _answer(self, connection: socket.socket, record: bytes) -> bytes:
        try:
            self._admit(connection)
            if _has_left(connection):
                # It has given up on us (we were just restarting): what it was told did not happen
                # must not happen.
                raise ControlError("Unavailable", "the client has left")
            request = _decode(record)
            return _encode({"version": PROTOCOL_VERSION, "answer": await self._handle(request)})
        except ControlError as error:
            return _encode_error(error.kind, str(error))

    def _admit(self, connection: socket.socket) -> None:
        uid = peer_uid(connection)
        if uid not in self._allowed_uids:
            raise ControlError("AccessDenied", f"user {uid} may not ask here")
        if self._being_answered >= CLIENTS_LIMIT:
            raise ControlError("Busy", f"{CLIENTS_LIMIT} requests are being answered")

    async def _handle(self, request: Document) -> Document:
        name = request.get("request")
        handler = self._handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise ControlError("InvalidArgument", f"unknown request {name!r}; known: {known}")
        self._being_answered += 1
        try:
            result = handler(request)
            return await result if inspect.isawaitable(result) else result
        except ControlError:
            raise
        except Exception as error:  # one faulty handler must not end the daemon
            _log.exception("control request %s failed", name)
            raise ControlError("Failed", f"{type(error).__name__}: {error}") from error
        finally:
            self._being_answered -= 1


def _has_left(connection: socket.socket) -> bool:
    """Whether the other end hung up; it has nothing more to say otherwise."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def peer_uid(connection: socket.socket) -> int:
    """The user on the other end of a connected AF_UNIX socket, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # On Linux the file gets the socket's mode, so it is never open to others, not for a moment.
        os.fchmod(listening.fileno(), 0o600)
        _remove_dead_socket(path)
        listening.bind(str(path))
        listening.listen(CLIENTS_LIMIT)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_dead_socket(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError(f"{path} is in the way and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(f"{path}: another process answers there already")


def _encode(document: Document) -> bytes:
    record = json.dumps(document).encode()
    if len(record) > RECORD_LIMIT_BYTES:
        raise ControlError("Failed", f"a record of {len(record)} bytes, over {RECORD_LIMIT_BYTES}")
    return record


def _encode_error(kind: str, message: str) -> bytes:
    # A quarter of the limit, because JSON may write a character as several.
    error = {"type": kind, "message": message[: RECORD_LIMIT_BYTES // 16]}
    return _encode({"version": PROTOCOL_VERSION, "error": error})


def _decode(record: bytes) -> Document:
    if len(record) > RECORD_LIMIT_BYTES:
        raise ControlError("InvalidArgument", f"a record of more than {RECORD_LIMIT_BYTES} bytes")
    try:
        document = json.loads(record)
    except (ValueError, RecursionError):
        raise ControlError("InvalidArgument", "a record that is not JSON") from None
    if not isinstance(document, dict):
        raise ControlError("InvalidArgument", "a record that is not a JSON object")
    if document.get("version") != PROTOCOL_VERSION:
        version = document.get("version")
        message = f"protocol version {version!r}, where {PROTOCOL_VERSION} is spoken"
        raise ControlError("InvalidArgument", message)
    return document
