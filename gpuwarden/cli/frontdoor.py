# SPDX-License-Identifier: Apache-2.0
"""HTTP to the front door: by the socket that root alone can open, or where ``--url`` says.

The standard library's client: a command starts in a tenth of the time that aiohttp takes to import.
"""

import argparse
import http.client
import json
import os
import re
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.working import working

DEFAULT_URL = "http://127.0.0.1:7860"
TIMEOUT_SECONDS = 90.0  # above the longest wait that is asked for
BLOCK_BYTES = 1 << 20
SENDABLE = re.compile(rb"[\t -~]*")  # RFC 9110, 5.5, less what is obsolete
CONTINUE_SECONDS = 2.0  # RFC 9110, 10.1.1: then the body is sent without having been asked for


@dataclass(frozen=True)
class Reply:
    """An answer; ``document`` is empty where it was no JSON object."""

    status: int
    headers: Mapping[str, str]
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The error in the service's words."""
        error = self.document.get("error")
        return str(error.get("message")) if isinstance(error, dict) else f"HTTP {self.status}"


class LocalConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS, blocksize=BLOCK_BYTES)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Door:
    """Where the service is, and the key to it; each thread opens connections of its own.

    :param url: empty: the local socket.
    """

    url: str
    api_key: str = ""
    socket_path: Path = names.GATEWAY_LOCAL_SOCKET

    @property
    def place(self) -> str:
        """What it is called in a message."""
        return self.url or str(self.socket_path)

    @property
    def hostname(self) -> str | None:
        """Where it listens; None: at the local socket. Raises CommandError for what is no URL."""
        return parsed(self.url)[1] if self.url else None

    def connect(self) -> "Connection":
        """A connection, not yet opened. Raises CommandError for what is no URL."""
        return Connection(self)


class Connection:
    """One connection, opened again where the service closed it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._http = self._make()

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> Reply:
        """One request. Raises CommandError (3) where nobody answers."""
        body = None if content is None else json.dumps(content).encode()
        with working(f"waiting for {self._door.place}"):
            return self._asked_twice(method, path, body)

    def _asked_twice(self, method: str, path: str, body: bytes | None) -> Reply:
        """Once more where the connection was closed, amidst an answer too. Raises CommandError."""
        try:
            return self._ask(method, path, body)
        except (http.client.HTTPException, BrokenPipeError, ConnectionResetError):
            self._http.close()  # it was closed while idle, or the service restarts
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            return self._ask(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def send(self, path: str, headers: Mapping[str, str], body: BinaryIO, length: int) -> Reply:
        """POST a file, unless the service answers before it was sent.

        :raises OSError: the connection broke; the service may or may not have taken it.
        """
        connection = self._http
        try:
            connection.putrequest("POST", path)
            for name, value in {**self._authorization(), **headers}.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(length))
            plain = not isinstance(connection, http.client.HTTPSConnection)  # TLS has no peeking
            if plain:
                connection.putheader("Expect", "100-continue")
            connection.endheaders()
            if not plain or self._is_asked_for():
                while block := body.read(BLOCK_BYTES):
                    connection.send(block)
            return self._reply(connection.getresponse())
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()  # a connection that took a big body serves no second request

    @contextmanager
    def get(self, path: str) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        """GET what may be large: the answer, with its content to be read while the block runs.

        :raises CommandError: nobody answers (3), or the content breaks off (1).
        """
        try:
            self._http.request("GET", path, headers=self._authorization())
            response = self._http.getresponse()
            is_good = response.status < 400
            headers = headers_of(response)
            reply = Reply(response.status, headers) if is_good else self._reply(response)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise self._unreachable(error) from error
        try:
            yield reply, blocks_of(response)
        finally:
            self._http.close()

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def _is_asked_for(self) -> bool:
        """Whether the body is to be sent: "100 Continue" has come, or nothing at all."""
        if not select.select([self._http.sock], [], [], CONTINUE_SECONDS)[0]:
            return True
        head: bytes = self._http.sock.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
        return head in (b"HTTP/1.1 100", b"")

    def _ask(self, method: str, path: str, body: bytes | None) -> Reply:
        self._http.request(method, path, body=body, headers=self._authorization())
        return self._reply(self._http.getresponse())

    def _reply(self, response: http.client.HTTPResponse) -> Reply:
        """An answer with its document. Raises HTTPException where it broke off."""
        if response.status < 400 and is_cut(response):
            raise http.client.HTTPException("the answer broke off in its headers")
        content = response.read()
        try:
            document = json.loads(content)
        except ValueError:
            document = {}
        return Reply(
            response.status, headers_of(response), document if isinstance(document, dict) else {}
        )

    def _authorization(self) -> dict[str, str]:
        key = self._door.api_key
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _make(self) -> http.client.HTTPConnection:
        if not self._door.url:
            return LocalConnection(self._door.socket_path)
        is_safe, hostname, port = parsed(self._door.url)
        kind = http.client.HTTPSConnection if is_safe else http.client.HTTPConnection
        try:
            return kind(hostname, port, timeout=TIMEOUT_SECONDS, blocksize=BLOCK_BYTES)
        except http.client.InvalidURL as error:
            raise CommandError(f"{self._door.url}: {error}", Exit.BAD_USE) from error

    def _unreachable(self, error: Exception) -> CommandError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return CommandError(
            f"{self._door.place} does not answer: {reason} (gpuwarden status)", Exit.UNREACHABLE
        )


def parsed(text: str) -> tuple[bool, str, int | None]:
    """A URL's service: whether by TLS, host, port. Raises CommandError for what is no URL."""
    try:
        url = urlsplit(text)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise CommandError(f"{text} is no URL like {DEFAULT_URL}", Exit.BAD_USE)
        url.hostname.encode("idna")  # as it is looked up
        return url.scheme == "https", url.hostname, url.port
    except ValueError as error:
        raise CommandError(f"{text}: {error}", Exit.BAD_USE) from error


def headers_of(response: http.client.HTTPResponse) -> dict[str, str]:
    """An answer's headers, by their names in small letters."""
    return {name.lower(): value for name, value in response.getheaders()}


def is_cut(response: http.client.HTTPResponse) -> bool:
    """Whether an answer broke off in its headers: the service says of each where it ends."""
    return response.length is None and not response.chunked


def blocks_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """An answer's content. Raises CommandError (1) where it is shorter than was announced."""
    if is_cut(response):
        raise CommandError("the answer broke off in its headers: try it again", Exit.WRONG)
    missing = response.length or 0
    try:
        while block := response.read(BLOCK_BYTES):
            missing -= len(block)
            yield block
    except (OSError, http.client.HTTPException) as error:
        text = f"the answer broke off ({type(error).__name__}): try it again"
        raise CommandError(text, Exit.WRONG) from error
    if missing > 0:
        text = f"the answer broke off, {missing} bytes are missing: try it again"
        raise CommandError(text, Exit.WRONG)


def add_door(parser: argparse.ArgumentParser) -> None:
    """The options that say where the service is."""
    parser.add_argument(
        "--url",
        metavar="URL",
        default=os.environ.get("GPUWARDEN_URL", ""),
        help=f"the service (default: $GPUWARDEN_URL, else as root the local socket,"
        f" else {DEFAULT_URL})",
    )
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        type=Path,
        default=os.environ.get("GPUWARDEN_API_KEY_FILE"),
        help="a file with the API key (default: $GPUWARDEN_API_KEY_FILE)",
    )


def door_of(arguments: argparse.Namespace) -> Door:
    """The service that is meant. Raises CommandError where the key can't be read."""
    key = "" if arguments.api_key_file is None else first_key(Path(arguments.api_key_file))
    local = os.access(names.GATEWAY_LOCAL_SOCKET, os.W_OK)
    return Door(arguments.url or ("" if local else DEFAULT_URL), key)


def first_key(file: Path) -> str:
    """The first API key of a file, one a line, as the service reads its own; none of an empty one.

    :raises CommandError: it can't be read or sent; what stands in it is not told.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise CommandError(f"the API key can't be read: {error}", Exit.BAD_USE) from error
    key = next(filter(None, map(bytes.strip, lines)), b"")
    if not SENDABLE.fullmatch(key):
        text = f"{file}: its first key can't be sent: keys are of printable ASCII, one a line"
        raise CommandError(text, Exit.BAD_USE)
    return key.decode("ascii")
