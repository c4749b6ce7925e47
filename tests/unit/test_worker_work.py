# SPDX-License-Identifier: Apache-2.0
"""What a worker holds when its gateway or its time is over, and what it says of what went wrong."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.messages import Pieces, parse, result_in
from gpuwarden.worker.channel import Channel
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.frames import Frame, FrameType, decode, encode
from gpuwarden.worker.held import Stage
from gpuwarden.worker.link import Session
from gpuwarden.worker.pool import Pool, Prepared
from gpuwarden.worker.running import Running
from gpuwarden.worker.texts import sendable
from gpuwarden.worker.work import Work

anything = st.text(st.characters(exclude_categories=()), max_size=300)


class NoPool:
    """CPU processes that have been given everything and have begun it."""

    def submit(self, task: object) -> None:
        pass

    def withdraw(self, serial: int) -> bool:
        return False

    def retire(self, numbers: list[int]) -> None:
        pass


class Connection:
    """One that takes whatever it is given."""

    closed = False


def holding(count: int, told: list[str]) -> tuple[Work, Session]:
    """A batch of one runs, and a batch of so many is ready."""

    def predict(items: list[Any], audience: object, running: Running, done: object) -> None:
        if running.serials == [1]:
            assert running.begin()

    def reply(session: Session, frame: Frame, meta: dict[str, Any], body: bytes) -> None:
        told.append(meta["error"]["type"])

    work, session = Work(predict, reply, lambda *what: None, lambda: None), Session()
    work.pool, work.accepting = cast(Pool, NoPool()), True
    session.channel, session.takes_answers = cast(Channel, Connection()), True
    for serial in range(1, count + 2):
        batch, size = (1, 1) if serial == 1 else (2, count)
        meta = {"form": "predict", "body": {"length": 1}}
        work.on_job(session, Frame(FrameType.JOB, serial, serial, batch, size, meta, b"x"), [])
    for serial in range(1, count + 2):
        work.on_prepared(serial, Prepared("image", 0.0))
    assert [job.stage for job in work._jobs.values()] == [Stage.RUNNING] * (count + 1)
    return work, session


@pytest.mark.parametrize("ending", ["lost", "drained"])
async def test_late_members_of_a_ready_batch_may_go_when_another_one_goes(ending: str) -> None:
    told: list[str] = []
    work, session = holding(3, told)
    for serial in (2, 3):
        work._jobs[serial].frame.meta["deadline_boottime_ns"] = 1  # long ago: they are late
    if ending == "lost":
        cast(Connection, session.channel).closed = True
        work.on_lost(session)
        assert not work._jobs[1].awaited
    else:
        work.drain()
        assert "returned" in told
    assert list(work._jobs) == [1]


@given(kind=anything, message=anything, param=st.none() | anything | st.integers())
def test_the_gateway_takes_whatever_a_failure_says(kind: str, message: str, param: Any) -> None:
    meta = Failure(kind, message, param=param).as_meta()
    error = result_in(decode(encode(Frame(FrameType.RESULT, 1, 2, meta=meta))).meta).error
    assert error is not None
    assert (error.param is None) == (param is None)


@given(anything)
def test_the_gateway_takes_whatever_a_piece_says(text: str) -> None:
    piece = {"request": 1, "lease": 2, "text": sendable(text, 8192), "terms": {"stream": True}}
    meta = decode(encode(Frame(FrameType.CHUNK, meta={"pieces": [piece]}))).meta
    assert parse(Pieces, meta).pieces[0].text == piece["text"]


def test_what_can_be_sent_is_sent_as_it_is() -> None:
    assert sendable("œdema, 3 cm: 肺 🫁", 100) == "œdema, 3 cm: 肺 🫁"
