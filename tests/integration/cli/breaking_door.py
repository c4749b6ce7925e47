# SPDX-License-Identifier: Apache-2.0
"""A front door whose answers break off, as when it is killed amidst them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from tests.integration.gateway_node import GatewayNode

BLOCK_BYTES = 1 << 16


@contextlib.asynccontextmanager
async def breaking_door(
    node: GatewayNode, asked: bytes, cuts: Iterator[bytes]
) -> AsyncIterator[int]:
    """The port of a relay to the node.

    :param asked: which answers break off: to requests with this in their head.
    :param cuts: before what each of them does; those behind the last come whole.
    """

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await node.connect()
        head = await reader.readuntil(b"\r\n\r\n")
        cut = next(cuts, None) if asked in head else None
        requests.write(head)
        with contextlib.suppress(ConnectionError):  # who has hung up is sent no more
            await asyncio.gather(passed_on(reader, requests), passed_on(answers, writer, cut))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def passed_on(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, cut: bytes | None = None
) -> None:
    """All that comes, up to where it is cut; then both sides hang up."""
    with contextlib.closing(sink):
        while block := await source.read(BLOCK_BYTES):
            if cut is not None and cut in block:
                sink.write(block.partition(cut)[0])
                return
            sink.write(block)
            await sink.drain()
