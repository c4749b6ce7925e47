# SPDX-License-Identifier: Apache-2.0
import asyncio
import fcntl
import hashlib
import mmap
import os
import socket

import pytest

from gpuwarden.gateway import takeover
from gpuwarden.gateway.buffers import SEALS
from gpuwarden.gateway.peers import Peer, credentials, start_time, worker_of_unit
from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.gateway_node import DEADLINE_SECONDS, gateway_node, read_reply
from tests.integration.gateway_peer import GatewayPeer

MIB = 1 << 20


async def test_a_caller_that_hangs_up_cancels_its_request() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False, max_batch=1)
        for size in (3, 2 * MIB):
            reader, writer = await node.connect()
            head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % size + bytes(size))
            job = await worker.next_job()
            writer.close()
            cancel = await worker.next_frame()
            assert (cancel.type, cancel.request, cancel.lease) == (
                FrameType.CANCEL,
                job.frame.request,
                job.frame.lease,
            )
            assert node.service.pool.in_use_bytes == (2 * MIB if size > 3 else 0)
            worker.fail(job, "cancelled")
            await node.until(lambda: node.service.pool.in_use_bytes == 0)
            assert await reader.read() == b""
        assert node.service.dispatcher.statistics.cancelled == 2


async def test_a_caller_that_hangs_up_while_waiting_costs_no_worker_anything() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False, max_batch=1)
        running = [asyncio.create_task(node.post(b"running")) for _ in range(2)]
        held = [await worker.next_job() for _ in range(2)]
        _, writer = await node.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        await node.until(lambda: node.service.dispatcher.queue.depth == 1)
        writer.close()
        await node.until(lambda: node.service.dispatcher.queue.depth == 0)
        live = asyncio.create_task(node.post(b"live"))
        for job in held:
            worker.answer(job)
        job = await worker.next_job()
        assert job.image == b"live"
        worker.answer(job)
        assert [(await one).status for one in [*running, live]] == [200] * 3


async def test_an_execution_that_takes_too_long_ends_and_its_late_answer_is_dropped() -> None:
    async with gateway_node(execution_timeout_seconds=0.2) as node:
        worker = await node.worker(auto=False, max_batch=1)
        posted = asyncio.create_task(node.post(b"slow"))
        job = await worker.next_job()
        reply = await posted
        assert (reply.status, reply.error) == (504, "execution_timeout")
        assert (await worker.next_frame()).type == FrameType.CANCEL
        assert (await node.get("/readyz")).json["reasons"] == ["worker 0 is stuck"]
        worker.answer(job)
        await node.until(lambda: len(node.ready_links()) == 1)
        worker.answers_by_itself = True
        assert (await node.post(b"next")).status == 200


async def test_a_request_that_no_worker_takes_in_time_may_come_back_later() -> None:
    async with gateway_node(request_timeout_seconds=0.2) as node:
        reply = await node.post(b"waits for a worker's return")
        assert (reply.status, reply.error) == (503, "queue_timeout")
        assert "retry-after" in reply.headers


async def test_a_result_for_a_wrong_job_attempt_or_lease_is_discarded_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    another = {"ok": True, "answer": {"text": "another patient's"}}
    piece = {"text": "another patient's", "terms": {}}
    async with gateway_node() as node:
        dying = await node.worker(0, auto=False)
        posted = asyncio.create_task(node.post(b"mine"))
        first = (await dying.next_job()).frame
        dying.close()
        worker = await node.worker(1, auto=False)
        job = await worker.next_job()
        second_posted = asyncio.create_task(node.post(b"another's"))
        neighbour = await node.worker(2, auto=False)
        others = await neighbour.next_job()
        wrong = (
            (job.frame.request, 999),  # no such lease
            (others.frame.request, job.frame.lease),  # another's job under its own lease
            (job.frame.request, first.lease),  # the attempt before
            (others.frame.request, others.frame.lease),  # another worker's
        )
        for request, lease in wrong:
            worker.send(Frame(FrameType.RESULT, request, lease, meta=another))
            pieces = {"pieces": [{"request": request, "lease": lease, **piece}]}
            worker.send(Frame(FrameType.CHUNK, meta=pieces))
        statistics = node.service.dispatcher.statistics
        await node.until(lambda: statistics.stale_results == len(wrong))
        worker.answer(job)
        neighbour.answer(others)
        assert (await posted).json["answer"]["sha256"] == hashlib.sha256(b"mine").hexdigest()
        assert (await second_posted).json["answer"]["sha256"] == others.sha256
    told = [record for record in caplog.records if "discarded" in record.getMessage()]
    fields = [vars(record)["fields"] for record in told]
    assert [one["GPUWARDEN_EVENT"] for one in fields] == ["result-discarded"] * len(wrong)
    assert {one["WORKER"] for one in fields} == {"1"}
    assert "another" not in caplog.text


async def test_an_answer_twice_is_discarded_and_whoever_has_the_next_lease_gets_its_own() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"first"))
        job = await worker.next_job()
        worker.answer(job)
        worker.answer(job)
        assert (await posted).json["answer"]["sha256"] == job.sha256
        again = asyncio.create_task(node.post(b"second"))
        next_job = await worker.next_job()
        worker.answer(job)
        worker.answer(next_job)
        assert (await again).json["answer"]["sha256"] == next_job.sha256
        assert node.service.dispatcher.statistics.stale_results == 2


async def test_what_a_draining_worker_returns_goes_to_another_without_blame() -> None:
    async with gateway_node() as node:
        leaving = await node.worker(0, auto=False)
        posted = [asyncio.create_task(node.post(b"image")) for _ in range(2)]
        jobs = [await leaving.next_job() for _ in range(2)]
        staying = await node.worker(1, auto=False)
        leaving.send(Frame(FrameType.STATE, meta={"state": "draining"}))
        for job in jobs:
            leaving.fail(job, "returned")
        for _ in jobs:
            job = await staying.next_job()
            request = node.service.dispatcher.queue.requests[job.frame.request]
            assert not request.suspect
            staying.answer(job)
        assert [(await one).json["worker"] for one in posted] == [1, 1]


async def test_batches_grow_with_the_load_up_to_what_the_worker_takes() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False, max_batch=4)
        posted = [asyncio.create_task(node.post(b"first"))]
        jobs = [await worker.next_job()]
        posted.append(asyncio.create_task(node.post(b"second")))
        jobs.append(await worker.next_job())
        posted += [asyncio.create_task(node.post(b"image")) for _ in range(6)]
        await node.until(lambda: node.service.dispatcher.queue.depth == 6)
        sizes: dict[int, int] = {}
        for _ in posted:
            job = jobs.pop(0) if jobs else await worker.next_job()
            sizes[job.frame.batch] = job.frame.count
            worker.answer(job)
        await asyncio.gather(*posted)
        assert list(sizes.values())[:3] == [1, 1, 4]


async def test_a_full_queue_has_room_for_those_for_whom_a_worker_is_free() -> None:
    async with gateway_node(queue_limit=2) as node:
        for number in range(2):
            await node.worker(number, max_batch=2)
        opened = [await node.connect() for _ in range(6)]
        for _, writer in opened:  # all are there when the loop looks next
            writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
        assert {(await read_reply(reader)).status for reader, _ in opened} == {200}
        for _, writer in opened:
            writer.close()


async def test_the_least_loaded_card_comes_first() -> None:
    async with gateway_node() as node:
        workers = [await node.worker(number, auto=False) for number in range(3)]
        posted = [asyncio.create_task(node.post(b"image")) for _ in range(3)]
        for worker in workers:
            worker.answer(await worker.next_job())
        assert {(await one).json["worker"] for one in posted} == {0, 1, 2}


async def test_buffers_are_sealed_zeroed_and_used_again() -> None:
    async with gateway_node() as node:
        worker = await node.worker()
        await node.post(b"\xff" * (3 * MIB))
        (number,) = worker.mappings
        await node.until(lambda: not any(worker.mappings[number][:]))
        descriptor = worker.descriptors[number]
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == SEALS == 0x17
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
        await node.post(b"\xee" * (4 * MIB))
        assert list(worker.mappings) == [number]


async def test_buffers_that_a_dead_worker_had_mapped_are_retired() -> None:
    async with gateway_node() as node:
        first = await node.worker(0)
        await node.post(bytes(3 * MIB))
        (number,) = first.mappings
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        second = await node.worker(1)
        while number not in second.mappings:
            await node.post(bytes(3 * MIB))
        first.close()
        retire = await second.next_frame()
        assert (retire.type, retire.meta) == (FrameType.RETIRE, {"buffer": number})
        assert node.service.pool.total_bytes == 0
        await node.post(bytes(3 * MIB))
        assert list(second.mappings) != [number]


async def test_a_second_connection_of_a_worker_is_refused_while_the_first_lives() -> None:
    number = 7

    def identify(connection: socket.socket) -> Peer:
        pid = credentials(connection)[0]
        return Peer(number, pid, start_time(pid))

    async with gateway_node(identify) as node:
        first = await node.worker(number)
        second = GatewayPeer(node.dispatch_path, number)
        await asyncio.wait_for(second.closed.wait(), DEADLINE_SECONDS)
        assert not first.closed.is_set()
        first.close()
        await node.worker(number)
        assert (await node.post(b"image")).json["worker"] == number


async def test_strangers_are_turned_away() -> None:
    async with gateway_node(worker_of_unit) as node:
        stranger = GatewayPeer(node.dispatch_path, 0)
        await asyncio.wait_for(stranger.closed.wait(), DEADLINE_SECONDS)
        assert not node.service.dispatcher.links


async def test_the_unit_tells_who_a_worker_is_not_its_own_word() -> None:
    async with gateway_node(lambda connection: Peer(4, os.getpid(), 0)) as node:
        liar = GatewayPeer(node.dispatch_path, 9)
        liar.hello()
        await liar.next_frame()
        assert [link.number for link in node.service.dispatcher.links.values()] == [4]
        liar.close()


async def test_the_slice_tells_which_card_s_heat_holds_for_a_worker() -> None:
    async with gateway_node(lambda connection: Peer(4, os.getpid(), 0, card=1)) as node:
        liar = GatewayPeer(node.dispatch_path, 4)
        liar.hello(gpu_index=0)
        await liar.next_frame()
        (link,) = node.service.dispatcher.links.values()
        assert link.seat.card == 1
        liar.close()


async def test_a_worker_that_breaks_the_protocol_is_hung_up_on() -> None:
    async with gateway_node() as node:
        for nonsense in (
            Frame(FrameType.CREDIT, count=3),
            Frame(FrameType.HELLO, meta={"protocol": 1}),
        ):
            peer = GatewayPeer(node.dispatch_path)
            peer.send(nonsense)
            await asyncio.wait_for(peer.closed.wait(), DEADLINE_SECONDS)
        worker = await node.worker()
        worker.send(Frame(FrameType.RESULT, meta={"ok": True}))
        await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)


async def test_the_snapshot_tells_queue_counters_and_workers() -> None:
    async with gateway_node(queue_limit=50) as node:
        worker = await node.worker(2, auto=False)
        worker.send(
            Frame(FrameType.MEMORY, meta={"vram_reserved_bytes": 7, "vram_allocated_bytes": 5})
        )
        posted = asyncio.create_task(node.post(b"image"))
        job = await worker.next_job()
        await node.until(lambda: bool(node.snapshot().workers))
        await node.until(lambda: node.snapshot().workers[0].state == "busy")
        data = node.snapshot()
        assert (data.accepted, data.queue_depth, data.queue_limit) == (1, 0, 50)
        assert (data.workers[0].number, data.workers[0].outstanding) == (2, 1)
        assert data.workers[0].vram_reserved_bytes == 7
        assert data.batch_limits == {2: 4}
        assert data.credits == {2: 7}
        worker.fail(job, "engine_error", "patient's text")
        await posted
        await node.until(lambda: node.snapshot().failed == 1)
        assert node.snapshot().workers[0].last_error == "engine_error"
        assert node.snapshot().workers[0].failures == 1
        assert "status: 1 worker ready, 0 waiting" in node.notifier.calls
        await node.until(lambda: node.notifier.calls.count("watchdog") >= 3)
        worker.close()
        await node.until(lambda: node.snapshot().workers_active == 0)


async def test_stopping_finishes_what_was_accepted() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        job = await worker.next_job()
        closing = node.stop()
        await node.until(lambda: node.service.dispatcher.queue.draining)
        worker.answer(job)
        assert (await posted).status == 200
        await closing
        await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)


async def test_this_aiohttp_lets_big_bodies_past_its_parser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[int] = []
    original = takeover.Receiver.buffer_updated

    def count(self: takeover.Receiver, nbytes: int) -> None:
        received.append(nbytes)
        original(self, nbytes)

    monkeypatch.setattr(takeover.Receiver, "buffer_updated", count)
    async with gateway_node() as node:
        await node.worker()
        await node.post(bytes(16 * MIB))
        assert sum(received) > 14 * MIB
        received.clear()
        monkeypatch.setattr(takeover, "can_take_over", lambda request: False)
        reply = await node.post(bytes(16 * MIB))
        assert reply.json["answer"]["sha256"] == hashlib.sha256(bytes(16 * MIB)).hexdigest()
        assert not received


async def test_large_bodies_that_come_together_all_come_whole() -> None:
    bodies = [bytes([number]) * (8 * MIB + number) for number in range(6)]
    async with gateway_node() as node:
        await node.worker()
        replies = await asyncio.gather(*(node.post(one) for one in bodies))
        told = [reply.json["answer"]["sha256"] for reply in replies]
        assert told == [hashlib.sha256(one).hexdigest() for one in bodies]
