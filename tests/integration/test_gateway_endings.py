# SPDX-License-Identifier: Apache-2.0
"""A front door that ends while bodies come in: what it has accepted is received and answered."""

import asyncio

import pytest

from tests.integration.gateway_node import DEADLINE_SECONDS, GatewayNode, gateway_node, read_reply
from tests.integration.short_way import connections, request

CHUNKED = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
MIDDLING = request(bytes(300_000))
CUT: dict[str, tuple[bytes, bytes]] = {
    "a head and its body": (request()[:-5], request()[-5:]),
    "a body of middling size": (MIDDLING[:1000], MIDDLING[1000:]),
    "chunks": (CHUNKED + b"3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n"),
}


async def ending(node: GatewayNode) -> "asyncio.Task[None]":
    """Told to end, with one accepted request whose body has not come."""
    await node.until(lambda: node.service.dispatcher.queue.depth == 1)
    closing = node.stop()
    await node.until(lambda: all(one._force_close for one in connections(node)))
    return closing


@pytest.mark.parametrize("name", CUT)
async def test_a_body_that_comes_in_is_received_and_nothing_behind_it(name: str) -> None:
    first, rest = CUT[name]
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(first)
        closing = await ending(node)
        writer.write(rest + request())
        reply = await read_reply(reader)
        assert reply.status == 200
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
        await asyncio.wait_for(closing, DEADLINE_SECONDS)
        assert node.service.dispatcher.statistics.accepted == 1
        writer.close()


async def test_a_body_that_breaks_off_is_told_so() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(CHUNKED + b"3\r\nabc\r\n")
        closing = await ending(node)
        writer.write(b"zz\r\n")
        reply = await read_reply(reader)
        assert (reply.status, reply.error) == (400, "invalid_request")
        await asyncio.wait_for(closing, DEADLINE_SECONDS)
        writer.close()
