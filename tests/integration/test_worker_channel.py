# SPDX-License-Identifier: Apache-2.0
"""What a worker makes of a front door that doesn't keep to the channel's rules."""

import os
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.worker.channel import DESCRIPTOR_LIMIT
from gpuwarden.worker.frames import HEADER, RECORD_LIMIT_BYTES, Frame, FrameType, encode
from tests.integration.model_classes import filling
from tests.integration.worker_peer import Connection, Node, until
from tests.open_files import open_files

UNKNOWN_TYPE = 200
RESULTS_BYTES = 1 << 20
FILLING: dict[str, Any] = {"engine": "model_classes:Filling"}


def mappings(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


@pytest.mark.parametrize(
    "record",
    [
        HEADER.pack(9, FrameType.DRAIN, 0, 2, 0, 0, 0) + b"{}",
        b"no frame",
        bytes(RECORD_LIMIT_BYTES + 1),
    ],
)
async def test_a_worker_leaves_what_is_no_front_door_and_comes_again(
    node: Node, record: bytes
) -> None:
    async with node.scripted() as (_, connection):
        connection.send_raw(record)
        await connection.until_closed()
        again = await node.accept()
        await again.next_of(FrameType.CREDIT)
        again.job(1)
        assert (await again.results(1))[1].meta["ok"]


async def test_frames_of_a_newer_front_door_are_passed_over(node: Node) -> None:
    async with node.scripted() as (_, connection):
        connection.send(Frame(UNKNOWN_TYPE, meta={"something": "new"}, body=b"body"))
        connection.send(Frame(FrameType.RESULT, meta={"not": "a front door's to say"}))
        connection.job(1)
        assert (await connection.results(1))[1].meta["ok"]


async def test_descriptors_that_nobody_announced_are_closed(node: Node) -> None:
    async with node.scripted() as (worker, connection):
        connection.job(1)
        await connection.results(1)
        before = open_files(worker.pid)
        stray = null()
        for kind in (FrameType.CANCEL, FrameType.LEND, UNKNOWN_TYPE, FrameType.RETIRE):
            connection.send(Frame(kind, 77, 78), stray)
        meta = {"body": {"length": 0}, "question": "?", "media_type": "", "parameters": {}}
        connection.send(Frame(FrameType.JOB, 2, 3, 4, 1, meta), stray)
        assert (await connection.results(1))[2].meta["ok"]
        assert open_files(worker.pid) == before
        os.close(stray)


async def test_more_descriptors_than_a_request_can_bring_end_the_connection(node: Node) -> None:
    async with node.scripted() as (worker, connection):
        before = open_files(worker.pid)
        stray = null()
        many = [stray] * (DESCRIPTOR_LIMIT + 5)
        connection.send_raw(encode(Frame(FrameType.CANCEL)), many)
        os.close(stray)
        await connection.until_closed()
        again = await node.accept()
        await again.next_of(FrameType.CREDIT)
        assert open_files(worker.pid) == before


async def a_borrowing_worker(node: Node, connection: Connection) -> Frame:
    connection.job(1, question="image/png 200000")
    wish = await connection.next_of(FrameType.BORROW)
    assert (wish.request, wish.lease, wish.meta) == (1, 501, {"length": 200_000})
    return wish


@pytest.mark.parametrize(
    ("meta", "brings", "kind"),
    [
        ({"size": 200_704}, False, "no_room"),
        ({"size": 100}, True, "no_room"),
        ({}, True, "no_room"),
        ({"error": {"type": "no_room", "message": "later"}}, False, "no_room"),
        ({"error": {"type": "no_room", "message": "later"}}, True, "no_room"),
        ({"error": {"type": "result_too_large", "message": "m"}}, False, "result_too_large"),
    ],
)
async def test_a_buffer_that_does_not_come_as_it_should_is_an_error_of_its_request(
    node: Node, meta: dict[str, Any], brings: bool, kind: str
) -> None:
    async with node.worker(**FILLING) as worker:
        connection = await node.accept(results_bytes=RESULTS_BYTES)
        await connection.next_of(FrameType.CREDIT)
        before = open_files(worker.pid)
        wish = await a_borrowing_worker(node, connection)
        buffer = os.memfd_create("result")
        lend = Frame(FrameType.LEND, wish.request, wish.lease, meta=meta)
        connection.send(lend, buffer if brings else None)
        result = (await connection.results(1))[1]
        assert result.meta["error"]["type"] == kind
        assert open_files(worker.pid) == before
        os.close(buffer)
        connection.job(2, question="json 60")
        assert (await connection.results(1))[2].meta["ok"]


async def test_a_buffer_that_cannot_be_written_is_an_error_of_its_request(node: Node) -> None:
    async with node.worker(**FILLING):
        connection = await node.accept(results_bytes=RESULTS_BYTES)
        await connection.next_of(FrameType.CREDIT)
        wish = await a_borrowing_worker(node, connection)
        unwritable = null()
        lend = Frame(FrameType.LEND, wish.request, wish.lease, meta={"size": 200_704})
        connection.send(lend, unwritable)
        error = (await connection.results(1))[1].meta["error"]
        assert error["type"] == "no_room"
        assert "can't be written" in error["message"]
        os.close(unwritable)


async def test_a_result_is_written_whole_and_let_go_of(node: Node) -> None:
    async with node.worker(**FILLING) as worker:
        connection = await node.accept(results_bytes=RESULTS_BYTES)
        await connection.next_of(FrameType.CREDIT)
        before = open_files(worker.pid)
        wish = await a_borrowing_worker(node, connection)
        buffer = os.memfd_create("result")
        os.ftruncate(buffer, 200_704)
        lend = Frame(FrameType.LEND, wish.request, wish.lease, meta={"size": 200_704})
        connection.send(lend, buffer)
        result = (await connection.results(1))[1]
        told = {"part": "file", "media_type": "image/png", "length": 200_000}
        assert result.meta["content"] == told
        assert result.body == b""
        assert os.pread(buffer, 300_000, 0) == filling(200_000) + bytes(704)
        assert open_files(worker.pid) == before
        assert "memfd:result" not in mappings(worker.pid)
        os.close(buffer)


@pytest.mark.parametrize("ticket", [None, f"{'0' * 32}:1"])
async def test_a_worker_whose_front_door_ends_before_it_lends_forgets_the_result(
    node: Node, ticket: str | None
) -> None:
    async with node.worker(**FILLING) as worker:
        connection = await node.accept(results_bytes=RESULTS_BYTES)
        await connection.next_of(FrameType.CREDIT)
        meta: dict[str, Any] = {} if ticket is None else {"ticket": ticket}
        connection.job(1, question="image/png 200000", **meta)
        await connection.next_of(FrameType.BORROW)
        connection.close()
        again = await node.accept(results_bytes=RESULTS_BYTES)
        await again.next_of(FrameType.CREDIT)
        again.job(5, question="json 60")
        assert set(await again.results(1)) == {5}
        worker.process.terminate()
        assert await worker.ended() == 0


async def test_a_draining_worker_hands_its_large_result_in_first(node: Node) -> None:
    async with node.worker(**FILLING) as worker:
        connection = await node.accept(results_bytes=RESULTS_BYTES)
        await connection.next_of(FrameType.CREDIT)
        wish = await a_borrowing_worker(node, connection)
        worker.process.terminate()
        await connection.next_state("draining")
        buffer = os.memfd_create("result")
        lend = Frame(FrameType.LEND, wish.request, wish.lease, meta={"size": 200_704})
        connection.send(lend, buffer)
        assert (await connection.results(1))[1].meta["ok"]
        assert os.pread(buffer, 300_000, 0) == filling(200_000)
        await connection.next_of(FrameType.BYE)
        assert await worker.ended() == 0
        os.close(buffer)


async def test_a_cancelled_result_is_not_written(node: Node) -> None:
    async with node.worker(**FILLING) as worker:
        connection = await node.accept(results_bytes=RESULTS_BYTES)
        await connection.next_of(FrameType.CREDIT)
        before = open_files(worker.pid)
        wish = await a_borrowing_worker(node, connection)
        connection.send(Frame(FrameType.CANCEL, wish.request, wish.lease))
        assert (await connection.results(1))[1].meta["error"]["type"] == "cancelled"
        buffer = os.memfd_create("result")
        lend = Frame(FrameType.LEND, wish.request, wish.lease, meta={"size": 200_704})
        connection.send(lend, buffer)
        await until(lambda: open_files(worker.pid) == before, "the late buffer was closed")
        assert os.fstat(buffer).st_size == 0
        os.close(buffer)
