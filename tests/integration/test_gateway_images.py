# SPDX-License-Identifier: Apache-2.0
"""Images that are sent once: kept for a time, within a budget, in no log, and given to nobody."""

import asyncio
import os

import pytest

from tests.integration.gateway_node import GatewayNode, Reply, gateway_node
from tests.integration.test_gateway_bodies import PNG, multipart, sha256

MIB = 1 << 20
NOBODY = "0" * 32


async def send(node: GatewayNode, image: bytes, media_type: str = "image/png") -> Reply:
    return await node.post(image, path="/v1/images", media_type=media_type)


async def ask(node: GatewayNode, url: str) -> Reply:
    return await node.post(b"", path=f"/predict?image={url}&question=why", media_type=None)


@pytest.mark.parametrize("size", [1, 70_000, 3 * MIB])
async def test_an_image_that_was_sent_once_is_asked_about_by_its_id(size: int) -> None:
    image = os.urandom(size)
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        sent = await send(node, image)
        assert (sent.status, sent.json["bytes"]) == (201, size)
        assert sent.json["url"] == f"gpuwarden://{sent.json['id']}"
        for _ in range(2):
            asked = asyncio.create_task(ask(node, sent.json["url"]))
            job = await worker.next_job()
            assert (job.image, job.frame.meta["question"]) == (image, "why")
            assert job.frame.meta["media_type"] == "image/png"
            worker.answer(job)
            assert (await asked).status == 200


@pytest.mark.parametrize("size", [100, 2 * MIB])
async def test_forms_take_an_image_and_its_reference(size: int) -> None:
    image = os.urandom(size)
    form = "multipart/form-data; boundary=frontier"
    async with gateway_node() as node:
        await node.worker()
        sent = await send(node, multipart(("image", PNG, image)), form)
        assert (sent.status, sent.json["bytes"]) == (201, size)
        body = multipart(("image", "", sent.json["url"].encode()), ("question", "", b"why"))
        reply = await node.post(body, media_type=form)
        assert reply.json["answer"] == {"sha256": sha256(image), "bytes": size}


async def test_nobody_gets_an_image_back_and_who_knows_its_id_can_delete_it() -> None:
    async with gateway_node() as node:
        await node.worker()
        sent = await send(node, b"image")
        path = f"/v1/images/{sent.json['id']}"
        assert (await node.get(path)).status == 405
        assert (await node.get("/v1/images")).status == 405
        deleted = await node.post(b"", path=path, method="DELETE", media_type=None)
        assert (deleted.status, deleted.json["deleted"]) == (200, True)
        again = await node.post(b"", path=path, method="DELETE", media_type=None)
        assert (again.status, again.error) == (404, "image_not_found")
        gone = await ask(node, sent.json["url"])
        assert (gone.status, gone.error) == (404, "image_not_found")
        assert gone.json["error"]["param"] == "image"
        assert node.service.pool.in_use_bytes == 0


async def test_an_image_is_gone_when_its_time_is_over_and_each_use_sets_it_again() -> None:
    async with gateway_node(images_seconds=0.3) as node:
        await node.worker()
        sent = await send(node, os.urandom(MIB))
        assert (await ask(node, sent.json["url"])).status == 200
        await node.until(lambda: not len(node.service.images))
        assert node.service.pool.in_use_bytes == 0
        assert (await ask(node, sent.json["url"])).status == 404


async def test_an_image_that_is_deleted_while_a_worker_has_it_stays_until_the_answer() -> None:
    image = os.urandom(2 * MIB)
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        sent = await send(node, image)
        asked = asyncio.create_task(ask(node, sent.json["url"]))
        job = await worker.next_job()
        path = f"/v1/images/{sent.json['id']}"
        await node.post(b"", path=path, method="DELETE", media_type=None)
        assert node.service.pool.in_use_bytes > 0
        other = await send(node, bytes(2 * MIB))
        assert other.status == 201
        worker.answer(job, answer={"sha256": sha256(worker.reread(job))})
        assert (await asked).json["answer"]["sha256"] == sha256(image)
        await node.until(lambda: node.service.pool.in_use_bytes == 2 * MIB)


async def test_images_have_a_budget_of_their_own() -> None:
    async with gateway_node(images_bytes=4 * MIB) as node:
        await node.worker()
        kept = [await send(node, os.urandom(MIB)) for _ in range(4)]
        refused = await send(node, b"one more")
        assert (refused.status, refused.error) == (429, "queue_full")
        assert 1 <= int(refused.headers["retry-after"]) <= 600
        assert (await node.post(os.urandom(2 * MIB))).status == 200
        path = f"/v1/images/{kept[0].json['id']}"
        await node.post(b"", path=path, method="DELETE", media_type=None)
        assert (await send(node, b"one more")).status == 201
        assert node.service.images.held_bytes == 4 * MIB


async def test_an_upload_that_breaks_off_leaves_nothing() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        head = "POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
        writer.write(head.format(3 * MIB).encode() + bytes(MIB))
        await writer.drain()
        await node.until(lambda: node.service.images.held_bytes > 0)
        writer.close()
        await node.until(lambda: node.service.images.held_bytes == 0)
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        assert await reader.read() == b""


async def test_too_many_uploads_at_once_are_refused() -> None:
    async with gateway_node(uploads_limit=2) as node:
        await node.worker()
        slow = [await node.connect() for _ in range(2)]
        for _, writer in slow:
            writer.write(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nslow"
            )
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        for path in ("/predict", "/v1/images"):
            refused = await node.post(b"image", path=path)
            assert (refused.status, refused.error) == (429, "queue_full")
        for _, writer in slow:
            writer.close()
        await node.until(lambda: node.service.dispatcher.queue.depth == 0)
        assert (await node.post(b"image")).status == 200


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/predict?image=http://pacs/1", "image"),
        (f"/predict?image=gpuwarden://{NOBODY}&image=gpuwarden://{NOBODY}", "image"),
        ("/v1/images?question=why", "question"),
    ],
)
async def test_what_is_no_reference_is_refused(path: str, param: str) -> None:
    async with gateway_node() as node:
        await node.worker()
        reply = await node.post(b"", path=path)
        assert (reply.status, reply.json["error"]["param"]) == (400, param)
