# SPDX-License-Identifier: Apache-2.0
"""Large bodies that a thread reads out of their sockets, and those of them that break off."""

import asyncio
import hashlib
import socket
from typing import Any

import pytest

from gpuwarden.gateway import hands, takeover
from tests.integration.gateway_node import gateway_node

MIB = 1 << 20
BODY = bytes(range(256)) * (32 * MIB // 256)
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/dicom\r\nContent-Length: %d\r\n\r\n"
)


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much threads have read, a number for each turn of theirs."""
    found: list[int] = []
    original = hands.read_on

    def read_on(*arguments: Any) -> int:
        count = original(*arguments)
        found.append(count)
        return count

    monkeypatch.setattr(takeover, "read_on", read_on)
    return found


def send(port: int, body: bytes, length: int) -> bytes:
    """Send a body, or what there is of it and an end, as fast as it goes; the answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD % length)
        connection.sendall(body)
        if len(body) < length:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


async def test_a_thread_reads_most_of_a_body_that_comes_fast(carried: list[int]) -> None:
    async with gateway_node() as node:
        await node.worker()
        answers = await asyncio.gather(
            *(asyncio.to_thread(send, node.port, BODY, len(BODY)) for _ in range(4))
        )
        digest = hashlib.sha256(BODY).hexdigest().encode()
        assert all(digest in answer for answer in answers)
        assert sum(carried) > len(BODY)


async def test_a_body_that_breaks_off_while_a_thread_reads_it_leaves_nothing_behind(
    carried: list[int],
) -> None:
    async with gateway_node() as node:
        await node.worker()
        assert await asyncio.to_thread(send, node.port, BODY, len(BODY) + 1) == b""
        assert carried
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        digest = hashlib.sha256(BODY).hexdigest().encode()
        assert digest in await asyncio.to_thread(send, node.port, BODY, len(BODY))
