# SPDX-License-Identifier: Apache-2.0
"""Clients that take their time: each has an end, and nobody else waits for them."""

import asyncio
import json
import socket

from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.gateway_node import DEADLINE_SECONDS, GatewayNode, gateway_node, read_reply
from tests.integration.real_worker import real_worker

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_who_never_ends_the_headers_is_told_so_and_who_says_nothing_is_hung_up_on() -> None:
    async with gateway_node(header_timeout_seconds=0.2) as node:
        await node.worker()
        for data in (b"", b"POS", HEAD, HEAD + b"X-Slow: "):
            reader, writer = await node.connect()
            writer.write(data)
            if data:
                reply = await read_reply(reader)
                assert (reply.status, reply.error) == (408, "request_timeout")
                assert reply.json["error"]["param"] == "headers"
            assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
            writer.close()
        assert (await node.post(b"image")).status == 200


async def test_the_time_for_headers_holds_for_every_request_of_a_connection() -> None:
    async with gateway_node(header_timeout_seconds=0.2) as node:
        reader, writer = await node.connect()
        writer.write(HEALTH)
        assert (await read_reply(reader)).status == 200
        writer.write(HEALTH[:20])
        assert (await read_reply(reader)).status == 408
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
        writer.close()


async def test_a_connection_without_a_request_is_closed_after_a_while() -> None:
    async with gateway_node(idle_timeout_seconds=0.2, header_timeout_seconds=60.0) as node:
        reader, writer = await node.connect()
        writer.write(HEALTH)
        assert (await read_reply(reader)).status == 200
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
        writer.close()


async def test_headers_without_end_are_refused_when_they_pass_the_limit_and_cost_no_more() -> None:
    async with gateway_node(header_limit_bytes=4096) as node:
        reader, writer = await node.connect()
        writer.write(HEAD)
        for number in range(100):
            writer.write(b"X-%d: %b\r\n" % (number, b"x" * 100))
        reply = await read_reply(reader)
        assert (reply.status, reply.error) == (431, "headers_too_large")
        assert reply.headers["connection"] == "close"
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
        writer.close()


async def test_more_connections_than_the_limit_are_hung_up_on() -> None:
    async with gateway_node(connections_limit=3) as node:
        await node.worker()
        held = [await node.connect() for _ in range(3)]
        reader, writer = await node.connect()
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
        writer.close()
        for _, one in held:
            one.close()
        server = node.service._runner.server
        assert server is not None
        await node.until(lambda: not server.connections)
        assert (await node.post(b"image")).status == 200


async def slow_reader(node: GatewayNode) -> socket.socket:
    """A connection of a client that takes nothing, with little room on its way."""
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (node.address, node.port))
    return client


async def test_who_reads_nothing_of_a_stream_is_hung_up_on_and_its_request_cancelled() -> None:
    chat = json.dumps({"model": "imagestats", "stream": True}).encode()
    async with gateway_node(reader_timeout_seconds=0.3) as node:
        worker = await node.worker(auto=False)
        client = await slow_reader(node)
        head = HEAD.replace(b"/predict", b"/v1/chat/completions")
        client.send(head + b"Content-Length: %d\r\n\r\n%b" % (len(chat), chat))
        job = (await worker.next_job()).frame
        terms = {"stream": True, "include_usage": False}
        piece = {"text": "word " * 10_000, "terms": terms}
        told = {"pieces": [{"request": job.request, "lease": job.lease, **piece}]}
        for _ in range(20):  # as many as an answer may have
            worker.send(Frame(FrameType.CHUNK, meta=told))
            await node.get("/healthz")  # so that it is read
        await node.until(lambda: node.service.dispatcher.statistics.cancelled == 1)
        client.close()
        assert (await worker.next_frame()).type == FrameType.CANCEL


async def test_who_reads_nothing_of_its_answers_is_hung_up_on() -> None:
    async with gateway_node(reader_timeout_seconds=0.3) as node:
        client = await slow_reader(node)
        server = node.service._runner.server
        assert server is not None
        question = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, question * 200)
        await node.until(lambda: bool(server.connections))
        await node.until(lambda: not server.connections)
        client.close()


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
