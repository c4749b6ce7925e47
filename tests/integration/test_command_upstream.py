# SPDX-License-Identifier: Apache-2.0
"""What a server may send that is no good answer, and what comes of it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gpuwarden.worker.engines.command.upstream import (
    RefusedError,
    UpstreamError,
    asked,
    is_open,
)
from tests.integration.command_server import free_port
from tests.waiting import DEADLINE_SECONDS

OK = b"HTTP/1.1 200 OK\r\n"
LIMIT_BYTES = 100


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[int]:
    """A server that reads who asks, says so whatever that is, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def body_of(answer: bytes, sent: bytes = b"") -> tuple[int, bytes]:
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        saying(answer) as port,
        asked(port, "POST", "/", (), memoryview(sent)) as found,
    ):
        return found.status, await found.whole(LIMIT_BYTES)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\n\r\nhello, and more",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    ],
)
async def test_an_answer_is_read_however_it_is_framed(answer: bytes) -> None:
    assert await body_of(answer) == (200, b"hello")


async def test_a_refusal_is_heard_before_all_of_a_large_body_was_sent() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    with contextlib.suppress(UpstreamError):  # the kernel may throw it away with the connection
        assert await body_of(refusal, bytes(8 << 20)) == (413, b"no")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        OK,
        OK + b"no colon\r\n\r\n",
        OK + b"a: b\r\n" * 200 + b"\r\n",
        OK + b"a: " + b"b" * 70_000 + b"\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: 5, 5\r\n\r\nhello",
        OK + b"Content-Length: 101\r\n\r\n" + bytes(101),
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nx\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000,
    ],
)
async def test_what_is_no_whole_answer_is_an_error_with_a_reason(answer: bytes) -> None:
    with pytest.raises(UpstreamError, match=r"it |its "):
        await body_of(answer)


async def test_no_bytes_break_it() -> None:
    rng = random.Random(7)
    words = [OK, b"\r\n", b"a: b\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\n", b"0\r\n\r\n"]
    for _ in range(100):
        parts = [rng.choice([*words, rng.randbytes(5)]) for _ in range(rng.randrange(8))]
        try:
            await body_of(b"".join(parts))
        except UpstreamError:
            continue


async def test_a_port_where_nobody_listens_is_told_apart() -> None:
    port = free_port()
    assert not await is_open(port)
    with pytest.raises(RefusedError, match=f"nobody listens on its port {port}"):
        async with asked(port, "GET", "/"):
            pass
