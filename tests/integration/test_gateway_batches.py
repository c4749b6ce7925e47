# SPDX-License-Identifier: Apache-2.0
"""Which requests go to a worker together, and when: with the real front door and its clock."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.integration.gateway_node import GatewayNode, Reply, gateway_node
from tests.integration.gateway_peer import GatewayPeer, ReceivedJob
from tests.integration.real_worker import real_worker

MIB = 1 << 20


async def gathered(node: GatewayNode, bodies: list[bytes]) -> list[asyncio.Task[Reply]]:
    """Requests that all wait, in this order."""
    posted = []
    for body in bodies:
        posted.append(asyncio.create_task(node.post(body)))
        await node.until(lambda: node.service.dispatcher.queue.depth == len(posted))
    await node.until(lambda: all(queued(node)))
    return posted


def queued(node: GatewayNode) -> list[bool]:
    return [job.queued_at is not None for job in node.service.dispatcher._jobs.values()]


async def taken(worker: GatewayPeer, requests: int) -> list[int]:
    """Answer so many requests; how many came together each time."""
    sizes: Counter[int] = Counter()
    for _ in range(requests):
        job = await worker.next_job()
        sizes[job.frame.batch] += 1
        worker.answer(job)
    return list(sizes.values())


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        ({}, {"batch_pixels": 3 * MIB}),
        ({"batch_pixels": 3 * MIB}, {}),
        ({"batch_pixels": 3 * MIB}, {"batch_pixels": 100 * MIB}),
    ],
)
async def test_a_batch_stays_within_the_pixels_that_worker_and_configuration_allow(
    said: dict[str, Any], settings: dict[str, Any]
) -> None:
    async with gateway_node(**settings) as node:
        sizes = [MIB, MIB, MIB, 2 * MIB, 2 * MIB, 5 * MIB, 100]
        posted = await gathered(node, [bytes(size) for size in sizes])
        worker = await node.busy_worker(auto=False, **said)
        assert await taken(worker, len(sizes)) == [3, 1, 1, 1, 1]
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


async def test_a_batch_stays_within_the_tokens_that_are_allowed() -> None:
    async with gateway_node(batch_tokens=250) as node:
        path = "/predict?question=" + "x" * 400
        posted = [asyncio.create_task(node.post(b"image", path=path)) for _ in range(4)]
        await node.until(lambda: all(queued(node)) and len(queued(node)) == 4)
        worker = await node.busy_worker(auto=False)
        assert await taken(worker, 4) == [2, 2]
        await asyncio.gather(*posted)


@pytest.mark.parametrize(("said", "batches"), [({}, [3, 2, 1]), ({"batch_mixed": True}, [4, 2])])
async def test_only_requests_of_one_kind_go_together_unless_the_engine_takes_all(
    said: dict[str, Any], batches: list[int]
) -> None:
    async with gateway_node() as node:
        posted = []
        for temperature in (0, 1, 0, 1, 0, 2):
            body = b'{"model": "imagestats", "messages": [], "temperature": %d}' % temperature
            chat = node.post(body, path="/v1/chat/completions", media_type="application/json")
            posted.append(asyncio.create_task(chat))
            await node.until(lambda: len(queued(node)) == len(posted) and all(queued(node)))
        worker = await node.busy_worker(auto=False, **said)
        assert await taken(worker, 6) == batches
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


async def test_with_a_window_those_that_come_within_it_go_together() -> None:
    async with gateway_node(linger_seconds=5.0) as node:
        posted = await gathered(node, [b"before"] * 4)
        worker = await node.busy_worker(auto=False)
        posted += [asyncio.create_task(node.post(b"image")) for _ in range(4)]
        assert await taken(worker, 8) == [4, 4]
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


async def test_the_window_closes_by_itself() -> None:
    async with gateway_node(linger_seconds=0.1) as node:
        posted = await gathered(node, [b"before"] * 4)
        worker = await node.busy_worker(auto=False)
        posted += [asyncio.create_task(node.post(b"image")) for _ in range(2)]
        assert sum(await taken(worker, 6)) == 6
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


async def test_each_request_goes_at_once_to_a_worker_with_slots() -> None:
    async with gateway_node(linger_seconds=5.0) as node:
        worker = await node.worker(auto=False, max_batch=2, scheduling="slots")
        posted = [asyncio.create_task(node.post(b"image")) for _ in range(6)]
        jobs = [await worker.next_job() for _ in range(4)]  # its credit: slots and prefetch
        assert {job.frame.count for job in jobs} == {1}
        assert len({job.frame.batch for job in jobs}) == 4
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        assert worker.jobs.empty()
        for job in jobs:
            worker.answer(job)
        for _ in range(2):
            worker.answer(await worker.next_job())
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


async def test_a_lower_limit_gives_a_worker_with_slots_nothing_until_it_holds_fewer() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False, max_batch=3, scheduling="slots")
        posted = [asyncio.create_task(node.post(b"image")) for _ in range(5)]
        jobs = [await worker.next_job() for _ in range(5)]
        for job in jobs[:3]:
            worker.joins(job)
            worker.joins(job, False)
        node.guards.publish(0, state="alert", batch_limit=2)
        assert (await worker.next_frame()).meta["batch_limit"] == 2
        posted.append(asyncio.create_task(node.post(b"later")))
        await node.until(lambda: node.service.dispatcher.queue.depth == 1)
        for job in jobs[:3]:
            worker.answer(job)
        await asyncio.wait(posted, return_when=asyncio.FIRST_COMPLETED)
        assert worker.jobs.empty()  # it holds two yet
        for job in jobs[3:]:
            worker.answer(job)
        worker.answer(await worker.next_job())
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


async def test_what_died_in_its_own_prefill_is_retried_alone_and_its_neighbours_are_not() -> None:
    async with gateway_node() as node:
        doomed = await node.worker(auto=False, scheduling="slots")
        posted = [asyncio.create_task(node.post(one)) for one in (b"poison", b"honest one")]
        for _ in range(2):
            job: ReceivedJob = await doomed.next_job()
            doomed.joins(job)
            if job.image == b"honest one":
                doomed.joins(job, False)
        await node.until(lambda: any(one.joining for one in requests(node)))
        doomed.close()
        await node.until(lambda: not node.service.dispatcher.links)
        blame = {one.body_bytes: (one.suspect, one.solo_deaths) for one in requests(node)}
        assert blame == {len(b"poison"): (True, 1), len(b"honest one"): (False, 0)}
        await node.worker()
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


def requests(node: GatewayNode) -> list[Any]:
    return list(node.service.dispatcher.queue.requests.values())


@pytest.mark.parametrize(("engine", "is_mixed"), [("echo", True), ("model_classes:Filling", False)])
async def test_an_engine_says_whether_it_takes_all_kinds_together(
    engine: str, is_mixed: bool
) -> None:
    async with gateway_node() as node, real_worker(node, engine=engine):
        (link,) = node.service.dispatcher.links.values()
        assert link.seat.mixed is is_mixed
