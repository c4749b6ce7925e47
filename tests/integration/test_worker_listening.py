# SPDX-License-Identifier: Apache-2.0
"""A worker whose GPU thread listens by itself: nothing is different but who reads."""

import asyncio
import os
import signal
import struct
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from gpuwarden.worker.frames import Frame, FrameType
from gpuwarden.worker.listening import QUIET_SECONDS
from tests.integration.worker_peer import (
    DEADLINE_SECONDS,
    Connection,
    LentBuffer,
    Node,
    Worker,
    sha256,
    until,
)
from tests.open_files import open_files

NUMBERS = count(1000)


async def asked(connection: Connection, content: bytes = b"", **meta: Any) -> dict[str, Any]:
    """What one request is answered."""
    number = next(NUMBERS)
    connection.job(number, content, **meta)
    result = (await connection.results(1))[number]
    return dict(result.meta)


async def until_it_listens(connection: Connection) -> None:
    """Short requests until the GPU thread takes them by itself."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not (await asked(connection))["answer"]["listens"]:
        assert time.monotonic() < end, "the loop has read all the while"


@asynccontextmanager
async def listening(node: Node, **settings: Any) -> AsyncIterator[tuple[Worker, Connection]]:
    """A worker that does, with the gateway's end of its connection."""
    async with node.scripted("Short", **settings) as (worker, connection):
        await until_it_listens(connection)
        yield worker, connection


def cancel(request: int) -> Frame:
    return Frame(FrameType.CANCEL, request, request + 500)


def held_together(connection: Connection, *sizes: int, **meta: Any) -> list[Frame]:
    """Batches of those sizes, their requests numbered from 1 on."""
    numbers, frames = count(1), []
    for batch, size in enumerate(sizes, 7000):
        for _ in range(size):
            number = next(numbers)
            content = b"%d" % number
            terms = meta if number == 1 else {}
            frames.append(connection.job_frame(number, content, batch, size, None, terms)[0])
    return frames


async def test_each_answer_is_that_of_its_own_request(node: Node) -> None:
    async with listening(node) as (_, connection):
        for _ in range(50):
            content = os.urandom(200)
            answer = (await asked(connection, content))["answer"]
            assert answer["sha256"] == sha256(content)


async def test_batches_that_come_in_one_record_run_one_after_the_other(node: Node) -> None:
    async with listening(node) as (_, connection):
        connection.send_together(held_together(connection, 2, 1, 2))
        results = await connection.results(5)
        assert [results[n].meta["answer"]["batch"] for n in range(1, 6)] == [2, 2, 1, 2, 2]
        assert all(results[n].meta["answer"]["sha256"] == sha256(b"%d" % n) for n in results)


async def test_a_batch_whose_members_come_one_by_one_is_the_loops(node: Node) -> None:
    async with listening(node) as (_, connection):
        first, second = held_together(connection, 2)
        connection.send(first)
        connection.send(second)
        results = await connection.results(2)
        assert [results[n].meta["answer"]["batch"] for n in (1, 2)] == [2, 2]
        assert not results[1].meta["answer"]["listens"]


async def test_callers_may_leave_while_a_batch_turns_out_to_be_long(node: Node) -> None:
    gate = node.gate("long")
    async with listening(node) as (_, connection):
        connection.job(1, parameters={"wait_in_predict": gate.path})
        connection.job(2)
        connection.send(cancel(2))
        dropped = (await connection.results(1))[2]
        assert dropped.meta["error"]["type"] == "returned"
        gate.open()
        answered = (await connection.results(1))[1]
        assert answered.meta["answer"]["listens"]
        await until_it_listens(connection)


async def test_what_came_with_a_batch_that_turns_out_to_be_long_is_held_by_the_loop(
    node: Node,
) -> None:
    gate = node.gate("long")
    async with listening(node) as (_, connection):
        terms = {"parameters": {"wait_in_predict": gate.path}}
        connection.send_together([*held_together(connection, 1, 1, 1, **terms), cancel(3)])
        dropped = await connection.results(1)
        assert dropped[3].meta["error"]["type"] == "returned"
        gate.open()
        results = await connection.results(2)
        assert results[1].meta["answer"]["listens"]
        assert not results[2].meta["answer"]["listens"]


async def test_a_limit_that_comes_behind_a_long_batch_holds_for_the_next(node: Node) -> None:
    gate = node.gate("long")
    async with listening(node) as (_, connection):
        connection.job(1, parameters={"wait_in_predict": gate.path})
        connection.send(
            Frame(FrameType.LIMIT, meta={"batch_limit": 1, "thermal_state": "throttled"})
        )
        frames = held_together(connection, 1, 2)[1:]
        connection.send_together(frames)
        gate.open()
        results = await connection.results(3)
        assert [results[n].meta["answer"]["batch"] for n in (2, 3)] == [1, 1]
        await until_it_listens(connection)
        connection.send_together(frames)  # and holds while the thread listens
        results = await connection.results(2)
        assert [results[n].meta["answer"]["batch"] for n in (2, 3)] == [1, 1]


async def test_a_body_in_a_buffer_is_read_as_ever(node: Node) -> None:
    buffer = LentBuffer(1, os.urandom(200_000))
    try:
        async with listening(node) as (worker, connection):
            before = open_files(worker.pid)
            connection.job(1, buffer)
            answer = (await connection.results(1))[1].meta["answer"]
            assert answer["sha256"] == sha256(os.pread(buffer.descriptor, buffer.size, 0))
            await until_it_listens(connection)
            connection.send(Frame(FrameType.RETIRE, meta={"buffer": 1}))
            await until_it_listens(connection)
            await until(lambda: open_files(worker.pid) == before, "the buffer is given back")
    finally:
        buffer.close()


async def test_an_answer_that_no_frame_holds_goes_through_a_buffer(node: Node) -> None:
    async with listening(node, welcome={"results_bytes": 1 << 20}) as (_, connection):
        connection.job(1, parameters={"answer_bytes": 150_000})
        borrow = await connection.next_of(FrameType.BORROW)
        error = {"error": {"type": "no_room", "message": "none"}}
        connection.send(Frame(FrameType.LEND, borrow.request, borrow.lease, meta=error))
        assert not (await connection.results(1))[1].meta["ok"]
        await until_it_listens(connection)


async def test_a_request_that_fails_is_told_why_and_the_next_is_answered(node: Node) -> None:
    async with listening(node) as (_, connection):
        frames = held_together(connection, 2, 1, parameters={"raise_in_predict": "a name"})
        connection.send_together(frames)
        results = await connection.results(3)
        assert results[1].meta["error"]["type"] == "engine_error"
        assert "a name" not in str([results[n].meta for n in (2, 3)])
        assert all(results[n].meta["ok"] for n in (2, 3))
        await until_it_listens(connection)


def png_head(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


async def test_an_image_of_too_many_pixels_is_refused(node: Node) -> None:
    async with listening(node, max_pixels=1_000_000) as (_, connection):
        refused = await asked(connection, png_head(60_000, 60_000))
        assert refused["error"]["type"] == "too_many_pixels"
        await until_it_listens(connection)


async def test_a_request_whose_time_is_over_does_not_run(node: Node) -> None:
    async with listening(node) as (_, connection):
        late = await asked(connection, deadline_boottime_ns=1)
        assert late["error"]["type"] == "deadline_exceeded"


@pytest.mark.parametrize("said", [{"body": None}, {"parameters": 5}, {"body": {"buffer": 99}}])
async def test_a_malformed_job_is_refused(node: Node, said: dict[str, Any]) -> None:
    async with listening(node) as (_, connection):
        assert not (await asked(connection, **said))["ok"]
        await until_it_listens(connection)


async def test_a_durable_jobs_answer_says_whose_it_is(node: Node) -> None:
    async with listening(node) as (_, connection):
        answer = (await asked(connection, ticket="a-ticket"))["answer"]
        assert not answer["listens"]


async def test_a_record_that_is_no_frame_ends_the_connection_and_no_more(node: Node) -> None:
    async with listening(node) as (_, connection):
        connection.send_raw(b"no frame at all, and longer than a header of one")
        await connection.until_closed()
        connection.close()
        again = await node.accept_ready()
        await until_it_listens(again)


@pytest.mark.parametrize("is_busy", [False, True])
async def test_the_next_gateway_is_served(node: Node, is_busy: bool) -> None:
    gate = node.gate("long")
    async with listening(node) as (worker, connection):
        before = open_files(worker.pid)
        if is_busy:
            connection.job(1, parameters={"say_in_predict": gate.path})
            await gate.reached()
        connection.close()
        again = await node.accept_ready()
        await until_it_listens(again)
        assert open_files(worker.pid) == before
        assert worker.process.returncode is None


async def test_a_gateway_that_is_gone_gets_no_answer_of_a_long_batch(node: Node) -> None:
    gate = node.gate("long")
    async with listening(node) as (_, connection):
        connection.job(1, parameters={"wait_in_predict": gate.path})
        connection.close()
        again = await node.accept(instance="another")
        await again.next_of(FrameType.CREDIT)
        again.job(2)
        gate.open()
        results = await again.results(1)
        assert list(results) == [2]


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_stop_finishes_what_runs(node: Node, is_busy: bool) -> None:
    begun, gate = node.gate("begun"), node.gate("long")
    async with listening(node) as (worker, connection):
        if is_busy:
            slow = {"say_in_predict": begun.path, "wait_in_predict": gate.path}
            connection.job(1, parameters=slow)
            await begun.reached()
        os.kill(worker.pid, signal.SIGTERM)
        await connection.next_state("draining")
        if is_busy:
            connection.job(2)
            returned = (await connection.results(1))[2]
            assert returned.meta["error"]["type"] == "returned"
            gate.open()
        ending = await connection.until_closed()
        kinds = [frame.type for frame in ending if frame.type != FrameType.HEARTBEAT]
        assert kinds == [FrameType.RESULT, FrameType.BYE] if is_busy else [FrameType.BYE]
        assert await worker.ended() == 0


async def test_a_gateway_that_drains_hears_when_all_is_answered(node: Node) -> None:
    async with listening(node) as (_, connection):
        connection.job(1)
        connection.send(Frame(FrameType.DRAIN))
        assert (await connection.results(1))[1].meta["ok"]
        await connection.next_of(FrameType.BYE)


async def test_a_batch_that_hangs_is_seen_to(node: Node) -> None:
    gate = node.gate("hangs")
    async with listening(node, execution_timeout_seconds=1) as (_, connection):
        connection.job(1, parameters={"wait_in_predict": gate.path})
        stuck = await connection.next_of(FrameType.STATE)
        assert "stuck" in stuck.meta["error"]
        gate.open()
        assert (await connection.results(1))[1].meta["ok"]


async def test_a_card_that_breaks_ends_the_worker(node: Node) -> None:
    async with listening(node) as (worker, connection):
        connection.job(1, parameters={"break_card_in_predict": True})
        assert await worker.ended() != 0


async def test_the_loop_reads_again_when_nobody_asks(node: Node) -> None:
    async with listening(node) as (_, connection):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await asked(connection))["answer"]["listens"]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(2 * QUIET_SECONDS)
        await until_it_listens(connection)
