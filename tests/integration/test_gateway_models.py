# SPDX-License-Identifier: Apache-2.0
"""A chat that was accepted for a model is never answered by, or refused for, another one."""

import asyncio
import json

from tests.integration.gateway_node import GatewayNode, Reply, gateway_node
from tests.integration.test_gateway_drains import guarded

OLD, NEW = "gemma", "gemma-2"


def chat(node: GatewayNode, model: str | None, **headers: str) -> asyncio.Task[Reply]:
    body = {"messages": [{"role": "user", "content": "?"}], **({"model": model} if model else {})}
    asking = node.post(
        json.dumps(body).encode(),
        path="/v1/chat/completions",
        media_type="application/json",
        headers=headers,
    )
    return asyncio.create_task(asking)


async def test_a_chat_that_waits_while_the_model_changes_is_answered_by_the_one_it_asked_for() -> (
    None
):
    async with gateway_node() as node:
        first = await node.worker(0, auto=False, max_batch=1, model=OLD)
        running = [chat(node, OLD) for _ in range(2)]
        jobs = [await first.next_job() for _ in running]
        waiting = [chat(node, OLD), chat(node, None, **{"X-Gpuwarden-Model": OLD})]
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        new = await node.worker(1, max_batch=1, model=NEW)
        assert (await chat(node, NEW)).json["model"] == NEW
        assert (await chat(node, None)).json["model"] == NEW
        for job in jobs:
            first.answer(job)
        for _ in waiting:
            first.answer(await first.next_job())
        answers = [await one for one in (*running, *waiting)]
        assert {(one.status, one.json["model"]) for one in answers} == {(200, OLD)}
        assert new.jobs.empty()


async def test_when_the_model_does_not_come_back_that_is_what_the_caller_is_told() -> None:
    async with gateway_node(request_timeout_seconds=1.0) as node:
        first = await node.worker(0, auto=False, max_batch=1, model=OLD)
        asked = [chat(node, OLD) for _ in range(3)]
        await first.next_job()
        await node.worker(1, max_batch=1, model=NEW)
        first.close()
        answers = [await one for one in asked]
        assert {(one.status, one.error) for one in answers} == {(503, "model_unavailable")}
        assert all("retry-after" in one.headers for one in answers)
        gone = await chat(node, OLD)
        assert (gone.status, gone.error) == (404, "model_not_found")
        assert (await chat(node, NEW)).status == 200


async def test_a_drained_worker_finishes_its_model_and_promises_no_more_of_it() -> None:
    async with guarded() as gateway:
        node = gateway.node
        old = await node.worker(0, auto=False, max_batch=1, model=OLD)
        await node.worker(1, max_batch=1, model=NEW)
        asked = [chat(node, OLD) for _ in range(4)]
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        drained = asyncio.create_task(gateway.ask("drain", number=0, seconds=10))
        await node.until(lambda: node.service.dispatcher.drained == {0})
        late = await chat(node, OLD)
        assert (late.status, late.error) == (503, "model_unavailable")
        assert not drained.done()
        old.answers_by_itself = True
        while not old.jobs.empty():
            old.answer(old.jobs.get_nowait())
        assert {(await one).json["model"] for one in asked} == {OLD}
        assert await drained == 0
