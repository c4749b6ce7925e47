# SPDX-License-Identifier: Apache-2.0
"""Idempotency-Key: a retry joins the request that it repeats, whatever became of its caller."""

import asyncio
import gc
import os
from typing import Any

import pytest

from gpuwarden.gateway.body import Body
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node

MIB = 1 << 20
KEY = {"Idempotency-Key": "study-7/image-3"}


async def keyed(node: GatewayNode, body: bytes, **more: Any) -> Reply:
    return await node.post(body, headers=KEY, **more)


async def test_a_retry_joins_the_running_request() -> None:
    for image in (b"image", os.urandom(2 * MIB)):
        async with gateway_node() as node:
            worker = await node.worker(auto=False)
            first = asyncio.create_task(keyed(node, image))
            job = await worker.next_job()
            second = asyncio.create_task(keyed(node, image))
            await node.until(lambda: node.service.dispatcher.statistics.accepted == 2)
            worker.answer(job)
            replies = await asyncio.gather(first, second)
            assert [reply.status for reply in replies] == [200, 200]
            assert replies[0].json["answer"] == replies[1].json["answer"]
            assert (await keyed(node, image)).json["answer"] == replies[0].json["answer"]
            assert worker.jobs.empty()
            assert node.service.dispatcher.statistics.completed == 3
            assert node.service.pool.in_use_bytes == 0


async def test_a_retry_that_joins_keeps_no_place_and_no_memory_of_its_own() -> None:
    image = os.urandom(MIB)
    async with gateway_node(queue_limit=2, pool_bytes=2 * MIB) as node:
        worker = await node.worker(auto=False)
        first = asyncio.create_task(keyed(node, image))
        job = await worker.next_job()
        statistics = node.service.dispatcher.statistics
        retries: list[asyncio.Task[Reply]] = []
        for _ in range(5):
            retries.append(asyncio.create_task(keyed(node, image)))
            await node.until(lambda: statistics.accepted == 1 + len(retries))
            await node.until(lambda: node.service.pool.in_use_bytes == MIB)
        assert (node.service.dispatcher.queue.depth, node.service.pool.in_use_bytes) == (0, MIB)
        worker.answer(job)
        assert {reply.status for reply in await asyncio.gather(first, *retries)} == {200}


async def test_retries_that_come_at_once_are_one_request() -> None:
    image = os.urandom(MIB)
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        callers = [asyncio.create_task(keyed(node, image)) for _ in range(8)]
        job = await worker.next_job()
        statistics = node.service.dispatcher.statistics
        await node.until(lambda: statistics.accepted == 8)
        await node.until(lambda: node.service.pool.in_use_bytes == MIB)
        worker.answer(job)
        answers = [reply.json["answer"] for reply in await asyncio.gather(*callers)]
        assert answers == [{"sha256": job.sha256, "bytes": MIB}] * 8
        assert worker.jobs.empty()
        await node.until(lambda: statistics.completed == 8)
        assert (statistics.cancelled, statistics.failed) == (0, 0)


async def test_a_request_with_a_key_outlives_its_caller() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Idempotency-Key: study-7/image-3\r\n\r\nimage"
        )
        job = await worker.next_job()
        writer.close()
        assert await reader.read() == b""
        again = asyncio.create_task(keyed(node, b"image"))
        await node.until(lambda: node.service.dispatcher.statistics.accepted == 2)
        worker.answer(job)
        assert (await again).json["answer"]["sha256"] == job.sha256
        assert worker.jobs.empty()


async def refuse_new(node: GatewayNode, image: bytes) -> Reply:
    """What another request is told, and what a repeat gets."""
    fresh = await node.post(image, headers={"Idempotency-Key": "another"})
    assert fresh.status in (429, 503)
    again = await keyed(node, image)
    assert again.status == 200
    changed = await keyed(node, image + b"!")
    assert (changed.status, changed.error) == (422, "idempotency_mismatch")
    assert node.service.pool.in_use_bytes == 0
    return fresh


@pytest.mark.parametrize("size", [5, 2 * MIB])
async def test_an_answer_that_is_there_is_given_whatever_keeps_new_work_out(size: int) -> None:
    image = os.urandom(size)
    async with gateway_node(queue_limit=1, grace_seconds=0.0) as node:
        worker = await node.worker(max_batch=1)
        assert (await keyed(node, image)).status == 200
        worker.answers_by_itself = False
        waiting = [asyncio.create_task(node.post(b"running")) for _ in range(2)]
        for _ in waiting:
            await worker.next_job()
        waiting.append(asyncio.create_task(node.post(b"waiting")))
        await node.until(lambda: node.service.dispatcher.queue.depth == 1)
        assert (await refuse_new(node, image)).error == "queue_full"
        worker.close()
        await node.until(lambda: not node.service.dispatcher.links)
        assert (await refuse_new(node, image)).error == "unavailable"
        for one in waiting:
            one.cancel()


async def test_another_body_under_the_same_key_is_refused() -> None:
    async with gateway_node() as node:
        await node.worker()
        assert (await keyed(node, b"image")).status == 200
        for changed in (
            await keyed(node, b"other"),
            await keyed(node, b"image", path="/predict?question=why"),
            await keyed(node, b"image", media_type="image/png"),
        ):
            assert (changed.status, changed.error) == (422, "idempotency_mismatch")
            assert changed.json["error"]["param"] == "Idempotency-Key"


async def test_an_answer_is_kept_under_its_key_without_the_image() -> None:
    image = b"DOE^JANE" * 100  # small: it lies in no buffer
    async with gateway_node() as node:
        await node.worker()
        assert (await keyed(node, image)).status == 200
        gc.collect()
        held = [one for one in gc.get_objects() if isinstance(one, Body) and one.inline == image]
        assert held == []
        assert (await keyed(node, image)).status == 200


async def test_an_answer_is_gone_after_its_time_though_nobody_comes_with_a_key_again() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        attempts = node.service._endpoints.intake._attempts
        attempts.seconds = 0.05
        for size in (1, 100_000):  # in a frame, and in a buffer of its own
            asking = asyncio.create_task(
                node.post(b"image", headers={"Idempotency-Key": f"{size}"})
            )
            job = await worker.next_job()
            await worker.borrow(job, size)
            worker.hand_in(job, bytes(size))
            assert (await asking).status == 200
        await node.until(lambda: not attempts)
        assert node.service.dispatcher.lending.pool.in_use_bytes == 0
        assert attempts.kept_bytes == 0


async def test_a_failure_is_tried_again_under_its_key() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        failing = asyncio.create_task(keyed(node, b"image"))
        worker.fail(await worker.next_job(), "engine_error")
        assert (await failing).status == 500
        again = asyncio.create_task(keyed(node, b"image"))
        worker.answer(await worker.next_job())
        assert (await again).status == 200


async def test_a_request_that_we_fail_to_start_is_nobodys_to_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faulty(*_: object) -> None:
        raise ValueError("DOE^JOHN")

    async with gateway_node() as node:
        await node.worker()
        with monkeypatch.context() as patched:
            patched.setattr(node.service.dispatcher, "start", faulty)
            assert (await keyed(node, b"image")).status == 500
        assert (await keyed(node, b"image")).status == 200
        assert node.service.dispatcher.queue.requests == {}


async def test_a_stop_before_the_first_step_of_a_keyed_request_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gateway_node() as node:
        await node.worker(auto=False)
        intake = node.service._endpoints.intake
        begin, close = intake._attempts.begin, intake.close
        stops: list[asyncio.Task[None]] = []

        def begin_as_it_stops(*told: Any) -> Any:
            stops.append(asyncio.create_task(close()))  # it has its turn before the request
            return begin(*told)

        monkeypatch.setattr(intake._attempts, "begin", begin_as_it_stops)
        asking = asyncio.create_task(keyed(node, b"image"))
        await node.until(lambda: bool(stops))
        await asyncio.wait(stops)
        assert not node.service.dispatcher.queue.requests
        assert not intake._attempts
        asking.cancel()


async def test_a_key_that_is_none_is_refused() -> None:
    async with gateway_node() as node:
        await node.worker()
        reply = await node.post(b"image", headers={"Idempotency-Key": "x" * 256})
        assert (reply.status, reply.json["error"]["param"]) == (400, "Idempotency-Key")
