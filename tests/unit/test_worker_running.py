# SPDX-License-Identifier: Apache-2.0
"""A batch at the GPU thread: whose it is, when it may begin, and what leaves from there."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gpuwarden.worker.answers import unpack
from gpuwarden.worker.channel import Channel
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.frames import RECORD_LIMIT_BYTES, Frame, FrameType, decode, encode
from gpuwarden.worker.held import Held
from gpuwarden.worker.link import Session
from gpuwarden.worker.outputs import Answer, checked_answer
from gpuwarden.worker.pool import Prepared
from gpuwarden.worker.running import Running


def held(session: Session, request: int, **meta: Any) -> Held:
    return Held(session, Frame(FrameType.JOB, request, request + 500, 9, 1, meta))


def running(
    *metas: dict[str, Any], session: Session | None = None, before: Running | None = None
) -> Running:
    of = session or Session()
    jobs = [held(of, number, **meta) for number, meta in enumerate(metas or ({},))]
    return Running(list(range(len(jobs))), jobs, before)


@contextmanager
def connected() -> Iterator[tuple[Session, socket.socket]]:
    """A connection whose gateway takes ANSWERS, and the gateway's end of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    session = Session()
    session.channel = Channel(ours, lambda *what: None, lambda reason: None)
    session.takes_answers = True
    try:
        yield session, theirs
    finally:
        session.channel.close()
        theirs.close()


ANSWER = checked_answer({"text": "an answer"})


def test_a_batch_that_was_taken_back_never_begins() -> None:
    batch = running()
    assert batch.take()
    assert not batch.begin()


def test_a_batch_that_has_begun_is_not_taken_back() -> None:
    batch = running()
    assert batch.begin()
    assert not batch.take()


def test_whoever_races_for_a_batch_one_alone_gets_it() -> None:
    batches = [running() for _ in range(500)]
    begun: list[int] = []
    thread = threading.Thread(target=lambda: begun.extend(one.begin() for one in batches))
    thread.start()
    taken = [one.take() for one in batches[::-1]][::-1]
    thread.join()
    assert all(a != b for a, b in zip(begun, taken, strict=True))


def test_a_batch_waits_until_the_answers_before_it_are_safe() -> None:
    first = running()
    assert first.begin()
    first.leave([ANSWER])  # there is no connection: they have not left
    assert not running(before=first).begin()
    first.is_settled = True
    assert running(before=first).begin()


def test_a_batch_that_lay_ready_for_longer_than_somebodys_time_is_the_loops() -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    before = running()
    before.is_settled = True
    assert running({"deadline_boottime_ns": now + 10**12}, {}, before=before).begin()
    assert not running({"deadline_boottime_ns": now - 1}, {}, before=before).begin()


async def test_plain_answers_leave_at_once_each_under_its_lease() -> None:
    with connected() as (session, gateway):
        batch = running({}, {"form": "predict"}, session=session)
        assert batch.begin()
        batch.leave([ANSWER, checked_answer({"n": 2})])
        assert batch.has_left
        frame = decode(gateway.recv(RECORD_LIMIT_BYTES))
        answers = [(0, 500, b'{"text":"an answer"}'), (1, 501, b'{"n":2}')]
        assert unpack(frame) == (batch.seconds, answers)
        assert batch.may_wait


async def test_what_was_prepared_goes_with_its_answer() -> None:
    with connected() as (session, _):
        batch = running(session=session)
        batch.jobs[0].prepared = Prepared("an image", 0.0)
        assert batch.begin()
        batch.leave([ANSWER])
        assert batch.jobs[0].prepared is None


@pytest.mark.parametrize(
    ("meta", "answer"),
    [
        ({"form": "chat"}, ANSWER),
        ({"ticket": "a durable job's"}, ANSWER),
        ({}, Failure("engine_error", "it failed")),
        ({}, checked_answer({"text": "x" * 200_000})),
        ({}, checked_answer({"text": "x" * 70_000})),
    ],
)
async def test_whatever_is_unusual_is_left_to_the_loop(
    meta: dict[str, Any], answer: Answer
) -> None:
    with connected() as (session, gateway):
        batch = running({}, meta, session=session)
        assert batch.begin()
        batch.leave([ANSWER, answer])
        assert not batch.has_left
        assert not batch.may_wait
        with pytest.raises(BlockingIOError):
            gateway.recv(RECORD_LIMIT_BYTES)


async def test_nothing_is_written_from_the_thread_to_a_closed_or_full_connection() -> None:
    with connected() as (session, gateway):
        assert session.channel is not None
        record = encode(Frame(FrameType.ANSWERS, body=bytes(60_000)))
        while session.channel.send_from_thread(record):
            pass  # the socket has room
        assert not session.channel.pending  # what found none is the loop's to send
        session.channel.close()
        assert not session.channel.send_from_thread(record)
        assert gateway.recv(RECORD_LIMIT_BYTES)
