# SPDX-License-Identifier: Apache-2.0
"""The short way of small requests: nobody can tell it from aiohttp's own."""

import asyncio
import gc
import logging
import socket
import struct
from typing import Any, cast

import pytest

from gpuwarden.gateway import outlet
from gpuwarden.worker.frames import FrameType
from tests.integration.gateway_node import (
    DEADLINE_SECONDS,
    GatewayNode,
    Reply,
    gateway_node,
    read_reply,
)
from tests.integration.gateway_peer import GatewayPeer, ReceivedJob
from tests.integration.short_way import connections, request, taken

UNUSUAL = "Content-Encoding: identity\r\n"  # says nothing, and is not for the short way


def held(node: GatewayNode) -> int:
    """Bytes of requests that came before the answer that is due."""
    return sum(len(connection._held) for connection in connections(node))


async def ask(node: GatewayNode, data: bytes, *, short: bool) -> Reply:
    reader, writer = await node.connect()
    writer.write(data)
    reply = await read_reply(reader)
    assert taken(node) == short
    writer.close()
    await node.until(lambda: taken(node) == 0)
    return reply


SAME: dict[str, tuple[dict[str, Any], int]] = {
    "answered": ({}, 200),
    "asked": ({"path": "/predict?question=why"}, 200),
    "a wrong query": ({"path": "/predict?when=now"}, 400),
    "no image": ({"body": b""}, 400),
    "no such image": ({"body": b"", "path": f"/predict?image=gpuwarden://{'0' * 32}"}, 404),
    "not its type": ({"more": "Content-Type: text/plain\r\n"}, 415),
    "a page": ({"more": "Origin: http://localhost\r\n"}, 403),
    "no key": ({"more": "Via: proxy\r\n"}, 403),
}


@pytest.mark.parametrize("name", SAME)
async def test_both_ways_say_the_same(name: str) -> None:
    asked, status = SAME[name]
    async with gateway_node() as node:
        await node.worker()
        long = asked | {"more": str(asked.get("more", "")) + UNUSUAL}
        replies = [
            await ask(node, request(**asked), short=True),
            await ask(node, request(**long), short=False),
        ]
        assert [reply.status for reply in replies] == [status, status]
        first, second = ({**reply.json, "seconds": 0} for reply in replies)
        assert first == second
        varies = {"date": "", "content-length": ""}
        assert replies[0].headers | varies == replies[1].headers | varies
        text = node.service.dispatcher.metrics.text().decode()
        route = "other" if status == 403 else "/predict"
        assert f'route="{route}",status="{status}"}} 2.0' in text


async def test_no_worker_and_a_workers_error_are_told_on_both_ways() -> None:
    async with gateway_node() as node:
        node.service.dispatcher.queue._grace_until = 0.0
        for more in ("", UNUSUAL):
            reply = await ask(node, request(more=more), short=not more)
            assert (reply.status, reply.error) == (503, "unavailable")
            assert reply.headers["retry-after"] == "5"
        worker = await node.worker(auto=False)
        for more in ("", UNUSUAL):
            asking = asyncio.create_task(ask(node, request(more=more), short=not more))
            worker.fail(await worker.next_job(), "bad_image", "no image at all")
            reply = await asking
            assert (reply.status, reply.json["error"]["param"]) == (422, "image")
        assert node.service.dispatcher.statistics.failed == 2
        assert node.service.dispatcher.statistics.rejected == 2


@pytest.mark.parametrize(
    ("data", "is_short"),
    [
        (request(), True),
        (request(b"x" * 65_536), True),
        (request(b"x" * 65_537), False),
        (request(more="Idempotency-Key: a-key-of-mine\r\n"), False),
        (request(more="Expect: 100-continue\r\n"), False),
        (request(more="Connection: close\r\n"), False),
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (request().replace(b"POST /predict ", b"POST http://localhost/predict "), False),
    ],
)
async def test_what_is_unusual_goes_aiohttps_way(data: bytes, is_short: bool) -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        _, writer = await node.connect()
        writer.write(data)
        await worker.next_job()
        assert taken(node) == is_short
        writer.close()


async def test_what_comes_before_the_answer_waits_for_it_and_keeps_its_place() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(request(b"first"))
        first = await worker.next_job()
        writer.write(request(b"second") + request(b"third")[:30])
        await node.until(lambda: held(node) > 0)
        assert worker.jobs.empty()
        worker.answer(first)
        assert (await read_reply(reader)).json["answer"]["sha256"] == first.sha256
        second = await worker.next_job()
        writer.write(request(b"third")[30:])
        worker.answer(second)
        assert (await read_reply(reader)).json["answer"]["sha256"] == second.sha256
        third = await worker.next_job()
        worker.answer(third)
        assert [job.image for job in (first, second, third)] == [b"first", b"second", b"third"]
        assert (await read_reply(reader)).json["answer"]["sha256"] == third.sha256
        writer.close()


async def test_what_comes_between_an_answer_and_the_next_parsing_comes_after_what_waits() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(request(b"first"))
        first = await worker.next_job()
        writer.write(request(b"second")[:20])
        await node.until(lambda: held(node) == 20)
        (connection,) = connections(node)
        job = connection.job
        assert job is not None
        worker.answer(first)
        await node.until(lambda: connection.job is None)
        if connection._held:  # else it has been parsed by now
            connection.data_received(request(b"second")[20:])
        else:
            writer.write(request(b"second")[20:])
        assert (await read_reply(reader)).status == 200
        second = await worker.next_job()
        assert second.image == b"second"
        worker.answer(second)
        assert (await read_reply(reader)).status == 200
        assert gc.get_referrers(job) == []  # nobody holds the first one's image any more
        writer.close()


async def test_a_client_that_sends_on_and_reads_nothing_is_not_taken_in_without_end() -> None:
    async with gateway_node(queue_limit=10_000) as node:
        await node.worker()
        count, one = 3000, request(b"x" * 1000)
        reader, writer = await node.connect()
        transport = cast(asyncio.Transport, writer.transport)
        transport.pause_reading()
        writer.write(one * count)
        # Till it reads, most stays in the kernel, or with the client.
        await node.until(lambda: node.service.dispatcher.statistics.completed > 100)
        assert held(node) < 1 << 20
        transport.resume_reading()
        shas = {(await read_reply(reader)).json["answer"]["sha256"] for _ in range(count)}
        assert len(shas) == 1
        assert node.service.dispatcher.statistics.completed == count
        writer.close()


async def test_a_client_that_leaves_is_not_worked_for() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        _, writer = await node.connect()
        writer.write(request())
        job = await worker.next_job()
        writer.close()
        cancel = await worker.next_frame()
        assert (cancel.type, cancel.lease) == (FrameType.CANCEL, job.frame.lease)
        assert node.service.dispatcher.statistics.cancelled == 1
        worker.answer(job)  # nobody is there to be told
        await node.until(lambda: not node.service.dispatcher.queue.requests)


async def test_a_front_door_that_ends_answers_what_it_has_accepted() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(request())
        job = await worker.next_job()
        closing = node.stop()
        await node.until(lambda: all(one._close for one in connections(node)))
        worker.answer(job)
        reply = await read_reply(reader)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""
        await asyncio.wait_for(closing, DEADLINE_SECONDS)
        writer.close()


async def test_a_connection_that_waits_for_its_answer_is_not_idle() -> None:
    async with gateway_node(idle_timeout_seconds=0.1, header_timeout_seconds=0.1) as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        for _ in range(2):
            writer.write(request())
            job = await worker.next_job()
            others = await idle_connections_end(node)
            assert others == b""
            worker.answer(job)
            assert (await read_reply(reader)).status == 200
        assert await asyncio.wait_for(reader.read(), DEADLINE_SECONDS) == b""  # it is idle now
        writer.close()


async def idle_connections_end(node: GatewayNode) -> bytes:
    """What a connection without a request gets until it is hung up on, twice over."""
    got = b""
    for _ in range(2):
        reader, writer = await node.connect()
        got += await asyncio.wait_for(reader.read(), DEADLINE_SECONDS)
        writer.close()
    return got


async def test_headers_after_an_answer_have_their_time_limit() -> None:
    async with gateway_node(header_timeout_seconds=0.2) as node:
        await node.worker()
        reader, writer = await node.connect()
        for _ in range(3):
            writer.write(request())
            assert (await read_reply(reader)).status == 200
        writer.write(request()[:20])
        assert (await read_reply(reader)).status == 408
        writer.close()


async def test_a_file_as_an_answer_leaves_the_connection_to_the_next_request() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        content = b"\x89PNG" + bytes(100_000)
        for _ in range(2):
            writer.write(request())
            job = await worker.next_job()
            await worker.borrow(job, len(content))
            worker.hand_in(job, content)
            reply = await read_reply(reader)
            assert (reply.status, reply.body) == (200, content)
        assert taken(node) == 2
        await answered(node, worker, reader, writer)
        assert node.service.dispatcher.lending.pool.in_use_bytes == 0
        assert node.service.dispatcher.statistics.completed == 3
        writer.close()


async def answered(
    node: GatewayNode,
    worker: GatewayPeer,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> ReceivedJob:
    """One more request of the same connection."""
    writer.write(request())
    job = await worker.next_job()
    worker.answer(job)
    assert (await read_reply(reader)).status == 200
    return job


async def test_a_client_that_leaves_in_the_middle_of_a_file_holds_nothing() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(request())
        job = await worker.next_job()
        content = bytes(32 << 20)
        await worker.borrow(job, len(content))
        worker.hand_in(job, content)
        await reader.readexactly(1000)
        writer.transport.abort()
        await node.until(lambda: node.service.dispatcher.lending.pool.in_use_bytes == 0)
        assert node.service.dispatcher.statistics.cancelled == 1


async def test_a_client_that_leaves_as_its_file_comes_in_holds_nothing() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        client = socket.create_connection((node.address, node.port))
        client.sendall(request())
        job = await worker.next_job()
        await worker.borrow(job, 100_000)
        hang_up(client)  # seen in one turn of the loop: nothing is awaited in between
        worker.hand_in(job, bytes(100_000))
        await node.until(lambda: not connections(node))
        assert node.service.dispatcher.lending.pool.in_use_bytes == 0
        assert node.service.dispatcher.statistics.cancelled == 1


@pytest.mark.parametrize("more", ["", UNUSUAL])
async def test_a_client_that_leaves_before_the_first_byte_of_its_file_is_no_fault_of_ours(
    more: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_buffer = outlet.send_buffer
    client = socket.socket()

    async def leave_first(*arguments: Any) -> None:
        hang_up(client)
        await send_buffer(*arguments)

    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        monkeypatch.setattr(outlet, "send_buffer", leave_first)
        client.connect((node.address, node.port))
        client.sendall(request(more=more))
        job = await worker.next_job()
        await worker.borrow(job, 100_000)
        worker.hand_in(job, bytes(100_000))
        statistics = node.service.dispatcher.statistics
        await node.until(lambda: statistics.cancelled + statistics.failed > 0)
        assert statistics.cancelled == 1
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def hang_up(client: socket.socket) -> None:
    """Reset the connection."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def test_a_fault_of_ours_is_a_500_that_quotes_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)

        def fail(*arguments: object) -> None:
            raise RuntimeError("the image of Mrs. Miller")

        reader, writer = await node.connect()
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(node.service.dispatcher, "start", fail)
            writer.write(request())
            reply = await read_reply(reader)
        assert (reply.status, reply.error) == (500, "internal_error")
        assert "Miller" not in reply.body.decode() + caplog.text
        assert "RuntimeError at test_gateway_express.py" in caplog.text
        await answered(node, worker, reader, writer)
        writer.close()
