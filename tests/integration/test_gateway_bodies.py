# SPDX-License-Identifier: Apache-2.0
import asyncio
import errno
import hashlib
import os
import time

import pytest

from gpuwarden.gateway import buffers
from tests.integration.gateway_node import gateway_node, read_reply
from tests.integration.worker_peer import until

MIB = 1 << 20


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def multipart(*parts: tuple[str, str, bytes], boundary: str = "frontier") -> bytes:
    body = b""
    for name, head, content in parts:
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{head}\r\n\r\n'.encode()
        )
        body += content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


PNG = '; filename="DOE^JOHN.png"\r\nContent-Type: image/png'


@pytest.mark.parametrize("size", [1, 65536, 65537, MIB - 1, MIB, MIB + 1, 9 * MIB + 7])
async def test_an_image_reaches_the_worker_byte_for_byte(size: int) -> None:
    image = os.urandom(size)
    async with gateway_node() as node:
        await node.worker()
        began = time.monotonic()
        reply = await node.post(image, path="/predict?question=What%20is%20it%3F")
        waited_seconds = time.monotonic() - began
    assert reply.status == 200
    assert reply.json["answer"] == {"sha256": sha256(image), "bytes": size}
    assert reply.json["model"] == "imagestats"
    assert reply.json["worker"] == 0
    assert 0 < reply.json["seconds"] < waited_seconds


@pytest.mark.parametrize("size", [100, 200_000, 5 * MIB])
async def test_a_multipart_image_reaches_the_worker_byte_for_byte(size: int) -> None:
    image = os.urandom(size)
    body = multipart(("image", PNG, image), ("question", "", "Größe?".encode()))
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(
            node.post(body, media_type='multipart/form-data; boundary="frontier"')
        )
        job = await worker.next_job()
        assert job.image == image
        assert job.frame.meta["question"] == "Größe?"
        assert job.frame.meta["media_type"] == "image/png"
        worker.answer(job)
        assert (await posted).status == 200


@pytest.mark.parametrize(
    "sizes", [[10, 20], [65530, 10], [40_000, 40_000, 1_500_000, 3], [MIB] * 4]
)
async def test_a_chunked_body_reaches_the_worker_byte_for_byte(sizes: list[int]) -> None:
    chunks = [os.urandom(size) for size in sizes]
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for chunk in chunks:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        reply = await read_reply(reader)
        writer.close()
        assert reply.json["answer"]["sha256"] == sha256(b"".join(chunks))
        assert node.service.dispatcher.queue.held_bytes == 0


async def test_a_chunked_body_over_the_limit_is_refused() -> None:
    async with gateway_node(body_limit_bytes=2 * MIB) as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(5):
            writer.write(b"%x\r\n%b\r\n" % (MIB // 2, bytes(MIB // 2)))
        reply = await read_reply(reader)
        writer.close()
        assert (reply.status, reply.error) == (413, "body_too_large")


async def test_a_taken_over_body_may_come_slowly_and_with_a_pipelined_request_behind() -> None:
    image = os.urandom(3 * MIB)
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(image)
        )
        step = 700_001
        for offset in range(0, len(image), step):
            writer.write(image[offset : offset + step])
            await writer.drain()
            await asyncio.sleep(0.01)  # the pace of a slow client, not a wait for anything
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_reply(reader)).json == {"status": "ok"}
        worker.answer(await worker.next_job())
        reply = await read_reply(reader)
        assert reply.json["answer"]["sha256"] == sha256(image)
        assert reply.headers["connection"] == "close"
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("size", [600_000, 3 * MIB])  # through the parser, and past it
async def test_a_buffer_that_is_used_again_holds_nothing_of_the_bodies_before(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "SCRUB_AFTER_SECONDS", 60.0)  # the next body is always earlier
    async with gateway_node() as node:
        worker = await node.worker(auto=False)

        async def in_buffer(image: bytes) -> bytes:
            """All of the buffer that the worker is lent for it."""
            posted = asyncio.create_task(node.post(image))
            job = await worker.next_job()
            whole = worker.mappings[job.frame.meta["body"]["buffer"]][:]
            worker.answer(job)
            assert (await posted).status == 200
            await until(lambda: node.service.pool.in_use_bytes == 0, "it was given back")
            return whole

        first = await in_buffer(b"\xff" * size)
        _, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
        )
        writer.write(b"\xee" * (size // 2))
        await until(lambda: node.service.pool.in_use_bytes > 0, "it began")
        writer.close()
        await until(lambda: node.service.pool.in_use_bytes == 0, "it broke off")
        last = await in_buffer(b"\xdd" * (size - 100_000))
        assert last == b"\xdd" * (size - 100_000) + bytes(len(first) - size + 100_000)
        assert len(worker.mappings) == 1


async def test_many_big_and_small_bodies_at_once_stay_apart() -> None:
    images = [os.urandom(size) for size in (10, 70_000, 2 * MIB, 1_500_000, 100, 4 * MIB)] * 4
    async with gateway_node() as node:
        await node.worker(0)
        await node.worker(1)
        replies = await asyncio.gather(*(node.post(image) for image in images))
        assert [reply.json["answer"]["sha256"] for reply in replies] == [
            sha256(image) for image in images
        ]
        assert node.service.pool.in_use_bytes == 0


async def test_a_small_body_keeps_the_connection() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        for _ in range(3):
            writer.write(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
            )
            reply = await read_reply(reader)
            assert reply.json["answer"]["sha256"] == sha256(b"abc")
        writer.close()


async def test_continue_is_sent_after_admission_only() -> None:
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        "Content-Length: {}\r\n\r\n"
    )
    async with gateway_node(body_limit_bytes=2 * MIB) as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(head.format(2 * MIB).encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(bytes(2 * MIB))
        assert (await read_reply(reader)).status == 200
        writer.close()
        reader, writer = await node.connect()
        writer.write(head.format(2 * MIB + 1).encode())
        reply = await read_reply(reader)
        assert (reply.status, reply.error) == (413, "body_too_large")
        writer.close()


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("question", "", b"what?")], "body"),
        ([("image", PNG, b"x"), ("image", PNG, b"y")], "image"),
        ([("image", PNG, b"")], "image"),
        ([("image", PNG, b"x"), ("questoin", "", b"what?")], "questoin"),
        ([("image", PNG, b"x"), ("question", "", b"a"), ("question", "", b"b")], "question"),
        ([("image", PNG, b"x"), ("question", "", b"\xff\xfe")], "question"),
        ([("image", PNG, b"x"), ("question", "", b"q" * 20_000)], "question"),
    ],
)
async def test_a_wrong_form_is_named(parts: list[tuple[str, str, bytes]], param: str) -> None:
    async with gateway_node() as node:
        await node.worker()
        reply = await node.post(
            multipart(*parts), media_type="multipart/form-data; boundary=frontier"
        )
    assert (reply.status, reply.error) == (400, "invalid_request")
    assert reply.json["error"]["param"] == param


async def test_no_memory_for_a_body_is_told_as_such_wherever_one_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(number: int, size: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with gateway_node() as node:
        await node.worker()
        monkeypatch.setattr(buffers, "create_buffer", none_left)
        for path in ("/predict", "/v1/images", "/v1/jobs"):
            reply = await node.post(bytes(MIB), path=path)
            assert (reply.status, reply.error) == (503, "unavailable"), path
            assert int(reply.headers["retry-after"]) >= 1
