"""Clients that take their time: each has an end, and nobody else waits for them."""

import asyncio
import json

import pytest

from gpuwarden.gateway import http
from tests.integration.gateway_node import gateway_node
from tests.integration.real_worker import real_worker

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"


async def test_who_never_ends_the_headers_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEADERS_SECONDS", 0.2)
    async with gateway_node() as node:
        await node.worker()
        for data in (b"", b"POS", HEAD, HEAD + b"X-Slow: "):
            reader, writer = await node.connect()
            writer.write(data)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        assert (await node.post(b"image")).status == 200


async def test_more_connections_than_the_limit_are_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_LIMIT", 3)
    async with gateway_node() as node:
        await node.worker()
        held = [await node.connect() for _ in range(3)]
        reader, writer = await node.connect()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        for _, one in held:
            one.close()
        server = node.service._runner.server
        assert server is not None
        await node.until(lambda: not server.connections)
        assert (await node.post(b"image")).status == 200


async def test_who_reads_no_stream_does_not_hold_up_the_model() -> None:
    words = " ".join(["word" * 500] * 400)
    chat = {
        "model": "test-model",
        "stream": True,
        "messages": [{"role": "user", "content": words}],
    }
    body = json.dumps(chat).encode()
    async with gateway_node() as node, real_worker(node):
        reader, writer = await node.connect()
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        )
        writer.write(head % len(body) + body)
        assert (await reader.readline()).split()[1] in {b"200", b"500"}
        assert (await node.post(b"image")).status == 200
        writer.close()
        await node.until(lambda: node.service.dispatcher.queue.held_bytes == 0)
