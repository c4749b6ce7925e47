# SPDX-License-Identifier: Apache-2.0
"""What the front door makes of a worker that doesn't keep to the channel's rules."""

import asyncio
import logging
import os
import socket

import pytest

from gpuwarden.gateway import listener
from gpuwarden.gateway.channel import RecordChannel
from gpuwarden.gateway.link import CREDIT_LIMIT
from gpuwarden.worker.channel import Inbox
from gpuwarden.worker.frames import HEADER, RECORD_LIMIT_BYTES, Frame, FrameType, decode, encode
from tests.integration.gateway_node import DEADLINE_SECONDS, gateway_node
from tests.integration.gateway_peer import GatewayPeer
from tests.open_files import descriptors_used_up, held_files

UNKNOWN_TYPE = 200


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (HEADER.pack(9, FrameType.HEARTBEAT, 0, 2, 0, 0, 0) + b"{}", "protocol version 9"),
        (b"no frame", "shorter than a header"),
        (HEADER.pack(1, FrameType.RESULT, 0, 5, 0, 0, 0) + b"patie", "meta is not JSON"),
        (HEADER.pack(1, FrameType.STATE, 0, 99, 0, 0, 0), "meta of 99 bytes"),
        (bytes(RECORD_LIMIT_BYTES + 1), "a record over"),
        (encode(Frame(FrameType.CREDIT, count=CREDIT_LIMIT)), "credits"),
    ],
)
async def test_a_worker_that_breaks_the_rules_is_hung_up_on_and_its_request_goes_to_another(
    record: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        await worker.next_job()
        with caplog.at_level(logging.ERROR):
            worker.send_raw(record)
            await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)
        assert why in caplog.text
        assert "patie" not in caplog.text
        await node.worker(1)
        assert (await posted).json["worker"] == 1


async def test_frames_of_a_newer_worker_are_passed_over() -> None:
    async with gateway_node() as node:
        worker = await node.worker()
        worker.send(Frame(UNKNOWN_TYPE, 1, 2, 3, 4, {"something": "new"}, b"body"))
        worker.send(Frame(FrameType.JOB, 1, 2, meta={"not": "a worker's to say"}))
        assert (await node.post(b"image")).status == 200
        assert not worker.closed.is_set()


async def test_descriptors_that_a_worker_sends_are_never_taken() -> None:
    async with gateway_node() as node:
        worker = await node.worker()
        assert (await node.post(b"image")).status == 200
        before = held_files()
        stray = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        worker.send_raw(encode(Frame(FrameType.HEARTBEAT)), [stray] * 50)
        worker.send_raw(encode(Frame(UNKNOWN_TYPE)), [stray])
        os.close(stray)
        assert (await node.post(b"image")).status == 200
        assert held_files() <= before
        assert not worker.closed.is_set()


async def test_a_descriptor_that_waits_for_a_slow_worker_stays_the_file_that_it_was() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = RecordChannel(ours, 0, lambda record: None, lambda: None)
    filler = encode(Frame(FrameType.RETIRE, meta={"buffer": 1, "pad": "x" * 60_000}))
    sent = 0
    while not channel._outbox:
        channel.send(filler)
        sent += 1
    lent = os.memfd_create("lent")
    inode = os.fstat(lent).st_ino
    channel.send(encode(Frame(FrameType.LEND)), [lent])
    os.close(lent)
    other = os.memfd_create("another's")
    assert other == lent  # its number is in use again
    theirs.setblocking(False)
    received: list[int] = []
    while not received:
        try:
            frame = Inbox().receive(theirs, decode)
        except BlockingIOError:
            await asyncio.sleep(0)
            continue
        assert frame is not None
        received = frame[1]
    assert os.fstat(received[0]).st_ino == inode
    channel.send(filler)
    channel.close()
    for descriptor in (other, *received):
        os.close(descriptor)
    theirs.close()


async def test_a_worker_that_comes_while_descriptors_are_used_up_is_taken_in_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "ACCEPT_AGAIN_SECONDS", 0.05)
    told = "a worker's connection can't be accepted"
    async with gateway_node() as node:
        peer = GatewayPeer(node.dispatch_path)  # it waits in the socket's backlog
        with descriptors_used_up():
            await node.until(lambda: told in caplog.text)
            for _ in range(100):  # turns of the loop, each of which would ask again
                await asyncio.sleep(0)
            assert caplog.text.count(told) <= 2
        await peer.become_ready()
        peer.close()
