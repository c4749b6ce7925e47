# SPDX-License-Identifier: Apache-2.0
"""Several frames in one record: only between those who say that they take them."""

import asyncio
from dataclasses import replace

import pytest

from gpuwarden.worker.answers import pack
from gpuwarden.worker.frames import Frame, FrameType, decode, encode
from gpuwarden.worker.together import together
from tests.integration.gateway_node import DEADLINE_SECONDS, GatewayNode, Reply, gateway_node
from tests.integration.gateway_peer import GatewayPeer, ReceivedJob


async def batch_of(
    node: GatewayNode, worker: GatewayPeer
) -> tuple[list[asyncio.Task[Reply]], list[ReceivedJob]]:
    """Four requests that waited for one another, in the worker."""
    first = asyncio.create_task(node.post(b"first"))
    opener = await worker.next_job()
    second = asyncio.create_task(node.post(b"second"))
    opener_too = await worker.next_job()
    asked = [asyncio.create_task(node.post(b"image %d" % number)) for number in range(4)]
    await node.until(lambda: node.service.dispatcher.queue.depth == 4)
    for job in (opener, opener_too):
        worker.answer(job)
    assert {(await one).status for one in (first, second)} == {200}
    return asked, [await worker.next_job() for _ in range(4)]


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_batch_comes_in_one_record_where_the_worker_takes_that(says_so: bool) -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False, together=says_so)
        asked, jobs = await batch_of(node, worker)
        assert {job.frame.count for job in jobs} == {4}
        assert worker.records_of_several == says_so
        for job in jobs:
            worker.answer(job)
        told = [(await one).json["answer"]["sha256"] for one in asked]
        assert sorted(told) == sorted(job.sha256 for job in jobs)
        assert len(set(told)) == 4


async def test_results_that_come_together_go_to_their_callers() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        asked, jobs = await batch_of(node, worker)
        wrong, *right = jobs
        records = [encode(worker.result_of(job)) for job in right]
        stale = Frame(
            FrameType.RESULT, wrong.frame.request, 999_999, meta={"ok": True, "answer": {}}
        )
        for record in together([records[0], encode(stale), *records[1:], b"no frame"]):
            worker.send_raw(record)
        await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)  # the last one is none
        statistics = node.service.dispatcher.statistics
        assert statistics.stale_results == 0  # nothing of a record that isn't whole is taken
        other = await node.worker(1)
        assert {(await one).json["worker"] for one in asked} == {1}
        assert statistics.completed == 6
        assert other.jobs.empty()


async def test_answers_in_one_frame_go_to_their_callers_as_they_came() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        asked, jobs = await batch_of(node, worker)
        said = [(job.frame, b'{"sha256": "%b"}' % job.sha256.encode()) for job in jobs]
        worker.send(decode(pack(said, 0.1)))
        replies = [await one for one in asked]
        assert {one.json["answer"]["sha256"] for one in replies} == {job.sha256 for job in jobs}
        assert all(b'{"sha256": "' in one.body for one in replies)  # with the worker's own spaces


async def test_an_answer_for_anothers_lease_is_dropped_alone() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        asked, jobs = await batch_of(node, worker)
        said = [(job.frame, b'{"sha256":"%b"}' % job.sha256.encode()) for job in jobs]
        stale = Frame(FrameType.JOB, jobs[0].frame.request, jobs[1].frame.lease)
        worker.send(decode(pack([(stale, b'{"sha256":"anothers"}'), *said], 0.1)))
        told = {(await one).json["answer"]["sha256"] for one in asked}
        assert told == {job.sha256 for job in jobs}
        assert node.service.dispatcher.statistics.stale_results == 1


async def test_answers_that_are_malformed_end_the_connection_and_reach_nobody() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        asked, jobs = await batch_of(node, worker)
        good = decode(pack([(job.frame, b'{"sha256":"of nobody"}') for job in jobs], 0.1))
        worker.send(replace(good, body=good.body[1:]))
        await asyncio.wait_for(worker.closed.wait(), 5)
        await node.worker(1)
        assert {(await one).json["worker"] for one in asked} == {1}


async def test_one_stale_result_among_others_is_dropped_alone() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        asked, jobs = await batch_of(node, worker)
        records = [encode(worker.result_of(job)) for job in jobs]
        stale = Frame(FrameType.RESULT, 1, 999_999, meta={"ok": True, "answer": {}})
        (record,) = together([records[0], encode(stale), *records[1:]])
        worker.send_raw(record)
        told = {(await one).json["answer"]["sha256"] for one in asked}
        assert told == {job.sha256 for job in jobs}
        assert node.service.dispatcher.statistics.stale_results == 1
