# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 to a server on this node's loopback: one request a connection, the answer as it comes.

A connection that is closed before its answer has ended tells the server that nobody waits any more.
"""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import AsyncIterator, Dict, Iterable, List, Mapping, Optional, Tuple

ADDRESS = "127.0.0.1"
LINE_LIMIT_BYTES = 64 * 1024
HEADERS_LIMIT = 100
SLICE_BYTES = 256 * 1024  # of a body on its way out: an image isn't copied as a whole
READ_BYTES = 64 * 1024


class UpstreamError(Exception):
    """The server gave no answer of HTTP; the text says what it did, and nothing of a request."""


class RefusedError(UpstreamError):
    """Nobody listens on its port."""


@dataclass
class Answer:
    """An answer whose head has been read; its body comes by ``chunks`` or ``whole``."""

    status: int
    headers: Dict[str, str]
    _reader: asyncio.StreamReader = field(repr=False)

    @property
    def media_type(self) -> str:
        """Its type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamError where it breaks off."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                while (size := _chunk_size(await self._reader.readline())) > 0:
                    yield await self._reader.readexactly(size)
                    await self._reader.readexactly(2)
            elif "content-length" in self.headers:
                left = _length(self.headers["content-length"])
                while left:
                    part = await self._reader.readexactly(min(left, READ_BYTES))
                    left -= len(part)
                    yield part
            else:
                while part := await self._reader.read(READ_BYTES):
                    yield part
        except (EOFError, OSError, ValueError) as error:
            raise UpstreamError(f"its answer broke off ({type(error).__name__})") from error

    async def whole(self, limit_bytes: int) -> bytes:
        """The body, if it has no more than so many bytes. Raises UpstreamError."""
        parts: List[bytes] = []
        size = 0
        async for part in self.chunks():
            size += len(part)
            if size > limit_bytes:
                raise UpstreamError(f"its answer has more than {limit_bytes} bytes")
            parts.append(part)
        return b"".join(parts)


@asynccontextmanager
async def asked(
    port: int,
    method: str,
    path: str,
    headers: Iterable[str] = (),
    body: Optional[memoryview] = None,
) -> AsyncIterator[Answer]:
    """Ask the server. Raises UpstreamError, RefusedError if nobody listens."""
    try:
        reader, writer = await asyncio.open_connection(ADDRESS, port, limit=LINE_LIMIT_BYTES)
    except ConnectionRefusedError as error:
        raise RefusedError(f"nobody listens on its port {port}") from error
    except OSError as error:
        raise UpstreamError(f"its port {port} can't be reached ({error.strerror})") from error
    # Sent beside reading: a server may refuse a body before it has taken all of it.
    sending = asyncio.ensure_future(_send(writer, _head(port, method, path, headers, body), body))
    try:
        status, found = await _read_head(reader)
        yield Answer(status, found, reader)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def is_open(port: int) -> bool:
    """Whether anybody listens there."""
    try:
        _, writer = await asyncio.open_connection(ADDRESS, port)
    except OSError:
        return False
    writer.close()
    return True


def _head(
    port: int, method: str, path: str, headers: Iterable[str], body: Optional[memoryview]
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {ADDRESS}:{port}", "Connection: close"]
    lines += ["Accept: */*", *headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    elif method == "POST":
        lines.append("Content-Length: 0")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


async def _send(writer: asyncio.StreamWriter, head: bytes, body: Optional[memoryview]) -> None:
    writer.write(head)
    for start in range(0, len(body or b""), SLICE_BYTES):
        assert body is not None
        writer.write(bytes(body[start : start + SLICE_BYTES]))
        await writer.drain()  # a connection that breaks is seen by who reads


async def _read_head(reader: asyncio.StreamReader) -> Tuple[int, Dict[str, str]]:
    try:
        while True:
            status = _status(await reader.readline())
            headers = _headers([line async for line in _lines(reader)])
            if status >= 200:
                return status, headers
    except OSError as error:
        raise UpstreamError("it closed the connection without an answer") from error
    except ValueError as error:
        raise UpstreamError("its answer is no HTTP") from error


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    for _ in range(HEADERS_LIMIT):
        line = await reader.readline()
        if line in (b"\r\n", b"\n"):
            return
        yield line
    raise ValueError("too many headers")


def _status(line: bytes) -> int:
    if not line:
        raise UpstreamError("it closed the connection without an answer")
    version, _, rest = line.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("another protocol")
    return int(rest[:3])


def _headers(lines: List[bytes]) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise ValueError("a line without a colon")
        headers[name.strip().lower()] = value.strip()
    return headers


def _chunk_size(line: bytes) -> int:
    size = int(line.partition(b";")[0], 16)
    if size < 0:
        raise ValueError("a negative length")
    return size


def _length(text: str) -> int:
    if not text.isdigit():
        raise ValueError("a length that is none")
    return int(text)


def header_lines(headers: Mapping[str, str]) -> List[str]:
    """Headers as they are sent."""
    return [f"{name}: {value}" for name, value in headers.items()]
