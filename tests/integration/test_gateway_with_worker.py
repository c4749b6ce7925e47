# SPDX-License-Identifier: Apache-2.0
import asyncio
import hashlib
import os

from tests.integration.gateway_node import gateway_node
from tests.integration.real_worker import real_worker


async def test_images_go_all_the_way_to_a_real_worker_and_its_answers_back() -> None:
    bodies = [os.urandom(size) for size in (1, 65536, 65537, (1 << 20) + 1, 5 << 20, 5 << 20)]
    async with gateway_node() as node, real_worker(node) as worker:
        for body in bodies:
            reply = await node.post(body, path="/predict?question=why", media_type="image/png")
            assert reply.status == 200
            assert reply.json["answer"]["body_sha256"] == hashlib.sha256(body).hexdigest()
            assert reply.json["model"] == "test-model"
        link = next(iter(node.service.dispatcher.links.values()))
        assert link.peer.pid == worker.pid
        assert link.tally.requests == len(bodies)


async def test_killed_workers_cost_no_request_while_another_one_lives() -> None:
    bodies = [os.urandom(size) for size in (10, 100_000, 1 << 21)] * 8
    async with gateway_node() as node, real_worker(node, number=1):
        async with real_worker(node, number=0) as doomed:
            posted = [asyncio.create_task(node.post(body)) for body in bodies]
            await node.until(lambda: node.service.dispatcher.statistics.completed > 0)
            doomed.process.kill()
            replies = await asyncio.gather(*posted)
        assert [reply.status for reply in replies] == [200] * len(bodies)
        assert [reply.json["answer"]["body_sha256"] for reply in replies] == [
            hashlib.sha256(body).hexdigest() for body in bodies
        ]
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
