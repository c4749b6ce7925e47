# SPDX-License-Identifier: Apache-2.0
"""Each wrong content ends in the error that names it, and its neighbours don't notice."""

import asyncio
import os

from tests.integration.broken_bodies import WRONG, Wrong
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import real_worker
from tests.integration.test_gateway_and_worker import ct_image
from tests.integration.worker_peer import children_of
from tests.open_files import open_files

TOGETHER = 4
MEMORY_BYTES = 512 << 20  # of a decoding process: a bomb that unfolds would need more
POOLED = 40  # descriptors of buffers that are kept for reuse


async def what_came(node: GatewayNode, wrong: Wrong) -> tuple[int, str, str]:
    reply = await node.post(wrong.body, path=wrong.path, media_type=wrong.media_type)
    if reply.status < 400:
        return reply.status, "", ""
    return reply.status, reply.error, reply.json["error"]["param"]


async def test_every_wrong_body_gets_its_own_error_and_neighbours_are_undisturbed() -> None:
    async with (
        gateway_node() as node,
        real_worker(node, engine="imagestats", preprocess_memory_bytes=MEMORY_BYTES) as worker,
    ):
        assert (await node.post(ct_image())).status == 200
        processes = children_of(worker.pid)
        before = {pid: open_files(pid) for pid in (os.getpid(), worker.pid, *processes)}
        done = asyncio.Event()

        async def neighbour() -> int:
            count = 0
            while not done.is_set():
                reply = await node.post(ct_image())
                assert (reply.status, reply.json["answer"]["max"]) == (200, 2191)
                count += 1
            return count

        going_on = asyncio.create_task(neighbour())
        places = asyncio.Semaphore(TOGETHER)

        async def tried(wrong: Wrong) -> tuple[str, object] | None:
            async with places:
                came = await what_came(node, wrong)
            right = (wrong.status, wrong.kind, wrong.param)
            return None if came == right else (wrong.name, came)

        tries = await asyncio.gather(*map(tried, WRONG))
        done.set()
        assert await going_on > 5
        assert [one for one in tries if one is not None] == []
        assert children_of(worker.pid) == processes, "a decoding process was lost"
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        assert node.service.dispatcher.queue.held_bytes == 0
        assert node.service.jobs.published().queued == 0
        for pid, count in before.items():
            assert open_files(pid) <= count + POOLED


async def test_an_image_that_needs_too_much_memory_fails_alone_and_costs_no_process() -> None:
    mib = 1 << 20
    async with (
        gateway_node() as node,
        real_worker(
            node, engine="model_classes:Greedy", preprocess_memory_bytes=64 * mib
        ) as worker,
    ):
        processes = children_of(worker.pid)
        refused = await node.post(b"image", path=f"/predict?question={1024 * mib}")
        assert (refused.status, refused.error) == (422, "bad_image")
        assert "preprocess_memory_bytes" in refused.json["error"]["message"]
        taken = await node.post(b"image", path=f"/predict?question={32 * mib}")
        assert taken.json["answer"] == {"taken": 32 * mib}
        assert children_of(worker.pid) == processes
