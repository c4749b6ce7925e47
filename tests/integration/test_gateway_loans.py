# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a buffer that is lent for a large result; each ends well."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwarden.gateway import outlet
from gpuwarden.gateway.job import Job
from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.gateway_node import (
    DEADLINE_SECONDS,
    GatewayNode,
    Reply,
    gateway_node,
    read_reply,
)
from tests.integration.gateway_peer import GatewayPeer, ReceivedJob
from tests.integration.model_classes import filling
from tests.integration.real_worker import real_worker
from tests.open_files import open_files

MIB = 1 << 20
ROOT = Path(__file__).parents[2]


def held_bytes(node: GatewayNode) -> int:
    return node.service.dispatcher.lending.pool.in_use_bytes


async def nothing_is_held(node: GatewayNode) -> None:
    await node.until(lambda: held_bytes(node) == 0)
    assert not any(link.loans for link in node.service.dispatcher.links.values())
    assert open_files(name="gpuwarden-result") == 0


async def borrowed(
    node: GatewayNode, length: int, **headers: str
) -> tuple[asyncio.Task[Reply], GatewayPeer, ReceivedJob, Frame]:
    """A request whose worker has asked for a buffer."""
    worker = await node.worker(auto=False)
    posted = asyncio.create_task(node.post(b"image", headers=headers))
    job = await worker.next_job()
    return posted, worker, job, await worker.borrow(job, length)


async def test_the_request_of_a_worker_that_dies_with_a_buffer_goes_to_another() -> None:
    async with gateway_node() as node:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.gateway_peer"),
            *(str(node.dispatch_path), "0", "--borrow", str(5 * MIB)),
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        await node.until(lambda: bool(node.ready_links()))
        posted = asyncio.create_task(node.post(b"image"))
        await node.until(lambda: held_bytes(node) >= 5 * MIB)
        process.kill()
        await process.wait()
        await nothing_is_held(node)
        await node.worker(1)
        reply = await posted
        assert (reply.status, reply.json["worker"]) == (200, 1)


async def test_a_real_worker_killed_while_it_hands_in_costs_its_caller_nothing() -> None:
    settings = {"engine": "model_classes:Filling"}
    path = f"/predict?question=image/png%20{16 * MIB}"
    async with gateway_node() as node, real_worker(node, number=1, **settings):
        async with real_worker(node, number=0, **settings) as doomed:
            posted = [asyncio.create_task(node.post(b"image", path=path)) for _ in "1234"]
            await node.until(lambda: held_bytes(node) > 0)
            doomed.process.kill()
            replies = await asyncio.gather(*posted)
        assert [reply.status for reply in replies] == [200] * 4
        assert all(reply.body == filling(16 * MIB) for reply in replies)
        await nothing_is_held(node)


async def test_a_buffer_for_a_lease_that_is_not_held_is_refused() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        job = await worker.next_job()
        worker.send(Frame(FrameType.BORROW, job.frame.request, 12345, meta={"length": MIB}))
        lend = await worker.next_frame()
        assert lend.meta["error"]["type"] == "cancelled"
        worker.answer(job)
        assert (await posted).status == 200
        lend = await worker.borrow(job, MIB)  # that is over
        assert lend.meta["error"]["type"] == "cancelled"
        assert held_bytes(node) == 0


async def test_a_second_buffer_for_one_lease_is_a_breach_of_the_protocol() -> None:
    async with gateway_node() as node:
        posted, worker, job, _ = await borrowed(node, MIB)
        worker.send(Frame(FrameType.BORROW, job.frame.request, job.frame.lease, meta={"length": 1}))
        await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)
        await nothing_is_held(node)
        await node.worker(1)
        assert (await posted).status == 200


@pytest.mark.parametrize(
    "told",
    [{"length": MIB + 1}, {"length": 1 << 60}],
)
async def test_more_than_was_lent_is_no_result(told: dict[str, int]) -> None:
    async with gateway_node() as node:
        posted, worker, job, lend = await borrowed(node, MIB)
        assert lend.meta == {"size": MIB}
        worker.hand_in(job, b"x", **told)
        reply = await posted
        assert (reply.status, reply.error) == (500, "engine_error")
        assert "more than it was lent" in reply.json["error"]["message"]
        await nothing_is_held(node)
        assert not worker.closed.is_set()


async def test_a_result_that_claims_a_buffer_it_never_had_is_none() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        content = {"part": "file", "media_type": "image/png", "length": 100_000}
        worker.answer(await worker.next_job(), content=content)
        assert (await posted).error == "engine_error"


async def test_a_media_type_that_would_break_the_answers_head_is_a_breach_of_the_protocol() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        content = {"part": "file", "media_type": "image/png\r\nX: y", "length": 0}
        worker.answer(await worker.next_job(), content=content)
        await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)
        await node.worker(1)
        assert (await posted).status == 200


async def test_what_a_page_more_would_hold_is_too_large_and_not_to_be_tried_again() -> None:
    async with gateway_node(results_bytes=MIB + 100) as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        lend = await worker.borrow(await worker.next_job(), MIB + 50)
        assert lend.meta["error"]["type"] == "result_too_large"
        posted.cancel()


async def test_without_room_the_caller_is_told_when_to_come_again() -> None:
    async with gateway_node(results_bytes=4 * MIB) as node:
        posted, worker, job, _ = await borrowed(node, 3 * MIB)
        second = asyncio.create_task(node.post(b"another image"))
        other = await worker.next_job()
        refused = (await worker.borrow(other, 2 * MIB)).meta["error"]
        assert refused["type"] == "no_room"
        worker.fail(other, **{"kind": refused["type"], "message": refused["message"]})
        reply = await second
        assert (reply.status, reply.error) == (503, "unavailable")
        assert reply.headers["retry-after"] == "1"
        assert "results_bytes" in reply.json["error"]["message"]
        worker.hand_in(job, b"mask")
        assert (await posted).body == b"mask"
        await nothing_is_held(node)
        third = asyncio.create_task(node.post(b"image"))
        lend = await worker.borrow(await worker.next_job(), 5 * MIB)
        assert lend.meta["error"]["type"] == "result_too_large"
        third.cancel()


async def test_a_real_workers_result_over_the_limit_is_told_with_both_figures() -> None:
    path = f"/predict?question=image/png%20{MIB + 1}"
    async with (
        gateway_node(results_bytes=MIB) as node,
        real_worker(node, engine="model_classes:Filling"),
    ):
        reply = await node.post(b"image", path=path)
        assert (reply.status, reply.error) == (500, "engine_error")
        assert reply.json["error"]["message"] == (
            f"the result has {MIB + 1} bytes, {MIB} is the most ([gateway] results_bytes)"
        )
        assert (await node.post(b"image", path="/predict?question=image/png%2070000")).status == 200
        dispatcher = node.service.dispatcher
        dispatcher.apply(replace(dispatcher.settings, results_bytes=2 * MIB))  # by a reload
        assert (await node.post(b"image", path=path)).status == 200


async def test_a_caller_who_hangs_up_while_it_is_written_leaves_nothing_behind() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        job = await worker.next_job()
        await worker.borrow(job, MIB)
        writer.transport.abort()
        cancel = await worker.next_frame()
        assert (cancel.type, cancel.lease) == (FrameType.CANCEL, job.frame.lease)
        worker.hand_in(job, b"too late")
        await nothing_is_held(node)
        assert (await reader.read()) == b""


async def test_a_caller_who_hangs_up_while_reading_leaves_nothing_behind() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        job = await worker.next_job()
        await worker.borrow(job, 64 * MIB)
        worker.hand_in(job, bytes(64 * MIB))
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(MIB)
        writer.transport.abort()
        await nothing_is_held(node)
        assert (await node.get("/healthz")).status == 200


async def test_a_caller_who_does_not_read_keeps_a_result_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outlet, "READER_SECONDS", 0.1)
    monkeypatch.setattr(outlet, "READER_BYTES_PER_SECOND", 1 << 30)
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        job = await worker.next_job()
        await worker.borrow(job, 64 * MIB)
        worker.hand_in(job, bytes(64 * MIB))
        await nothing_is_held(node)
        with pytest.raises(ConnectionError):
            while await reader.read(MIB):
                pass
            raise ConnectionError  # the end came before the announced length
        writer.close()


async def test_others_are_served_while_a_large_result_goes_to_a_slow_reader() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        reader, writer = await node.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        job = await worker.next_job()
        await worker.borrow(job, 64 * MIB)
        worker.hand_in(job, filling(64 * MIB))
        await reader.readuntil(b"\r\n\r\n")
        worker.answers_by_itself = True
        replies = [await node.post(b"image") for _ in range(20)]
        assert {reply.status for reply in replies} == {200}
        assert await reader.readexactly(64 * MIB) == filling(64 * MIB)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_reply(reader)).json == {"status": "ok"}
        writer.close()
        await nothing_is_held(node)


async def test_retries_get_the_same_file_while_it_is_kept_and_then_it_goes() -> None:
    key = {"Idempotency-Key": "one"}
    async with gateway_node() as node:
        posted, worker, job, _ = await borrowed(node, MIB, **key)
        joined = asyncio.create_task(node.post(b"image", headers=key))
        worker.hand_in(job, b"the mask")
        assert [reply.body for reply in (await posted, await joined)] == [b"the mask"] * 2
        assert (await node.post(b"image", headers=key)).body == b"the mask"
        assert held_bytes(node) == MIB
    assert open_files(name="gpuwarden-result") == 0


async def test_retries_of_what_is_too_large_to_keep_join_while_it_runs_alone() -> None:
    key = {"Idempotency-Key": "one"}
    content = filling(20 * MIB)
    async with gateway_node() as node:
        posted, worker, job, _ = await borrowed(node, len(content), **key)
        joined = asyncio.create_task(node.post(b"image", headers=key))
        await node.until(lambda: job_of(node).holders == 3)
        worker.hand_in(job, content)
        assert [reply.body == content for reply in (await posted, await joined)] == [True] * 2
        await nothing_is_held(node)


def job_of(node: GatewayNode) -> Job:
    (attempt,) = node.service._endpoints.intake._attempts._attempts.values()
    return attempt.work


async def test_the_buffer_can_be_written_and_not_resized_and_no_other_result_ever_lies_in_it() -> (
    None
):
    async with gateway_node() as node:
        posted, worker, job, lend = await borrowed(node, 70_000)
        descriptor = os.dup(worker.loans[job.frame.lease])
        size = lend.meta["size"]
        assert os.pread(descriptor, size, 0) == bytes(size)
        for length in (0, size + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, length)
        worker.hand_in(job, b"first")
        assert (await posted).body == b"first"
        again = asyncio.create_task(node.post(b"image"))
        job = await worker.next_job()
        await worker.borrow(job, 70_000)
        other = worker.loans[job.frame.lease]
        assert os.fstat(other).st_ino != os.fstat(descriptor).st_ino
        os.pwrite(descriptor, b"late", 0)
        os.close(descriptor)
        worker.hand_in(job, b"second")
        assert (await again).body == b"second"
        assert json.loads((await node.get("/healthz")).body) == {"status": "ok"}
