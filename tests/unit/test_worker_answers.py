# SPDX-License-Identifier: Apache-2.0
"""ANSWERS: what is packed comes out, whoever's it is; anything else is refused whole."""

import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.job import Answer
from gpuwarden.gateway.messages import MessageError, answers_in
from gpuwarden.worker.answers import fits, pack, unpack
from gpuwarden.worker.compact import compact_json
from gpuwarden.worker.frames import (
    INLINE_LIMIT_BYTES,
    Frame,
    FrameError,
    FrameType,
    decode,
)

objects = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=3)
numbers = st.integers(0, 2**63)


def job(request: int, lease: int) -> Frame:
    return Frame(FrameType.JOB, request, lease, batch=7)


@given(st.lists(st.tuples(numbers, numbers, objects), min_size=1, max_size=8), st.floats(0, 1e6))
def test_each_answer_comes_out_as_it_went_in_under_its_own_lease(
    answers: list[tuple[int, int, dict[str, Any]]], seconds: float
) -> None:
    jobs = [
        (job(request, lease), compact_json(answer).encode()) for request, lease, answer in answers
    ]
    frame = decode(pack(jobs, seconds))
    assert frame.batch == 7
    assert unpack(frame) == (seconds, [(one.request, one.lease, data) for one, data in jobs])
    said = answers_in(frame)
    assert [(one.request, one.lease) for one, _ in said] == [(r, n) for r, n, _ in answers]
    assert [told.predict_seconds for _, told in said] == [seconds] * len(answers)
    got = [Answer(told.answer or {}, "a model", 0).answer for _, told in said]
    assert got == [answer for _, _, answer in answers]


GOOD = decode(pack([(job(1, 2), b'{"a":1}'), (job(3, 4), b"{}")], 0.5))


WHOSE = struct.Struct("<QQI")


def said_to_be(*lengths: int, seconds: float = 0.5) -> bytes:
    """GOOD's body with other words about it."""
    whose = [WHOSE.pack(1, 2, length) for length in lengths]
    return struct.pack("<d", seconds) + b"".join(whose) + b'{"a":1}{}'


@pytest.mark.parametrize(
    ("count", "body"),
    [
        (0, GOOD.body),
        (1, GOOD.body),
        (3, GOOD.body),
        (2, b""),
        (2, GOOD.body[:47]),
        (2, GOOD.body[:-1]),
        (2, GOOD.body + b"{}"),
        (1, said_to_be(7)),
        (2, said_to_be(7, 3)),
        (2, said_to_be(8, 1)),
        (2, said_to_be(9, 0)),
        (3, said_to_be(7, 2, 0)),
        (2, said_to_be(7, 2**32 - 1)),
    ],
)
def test_whose_answers_they_are_must_be_certain(count: int, body: bytes) -> None:
    assert unpack(replace(GOOD, body=said_to_be(7, 2)))[0] == 0.5
    with pytest.raises(FrameError):
        unpack(replace(GOOD, count=count, body=body))


def test_a_meta_is_none_of_theirs() -> None:
    with pytest.raises(FrameError):
        unpack(replace(GOOD, meta={"predict_seconds": 0.5}))


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(MessageError):
        answers_in(replace(GOOD, body=said_to_be(7, 2, seconds=seconds)))


def test_what_no_frame_holds_does_not_fit() -> None:
    words = struct.calcsize("<d") + 2 * WHOSE.size
    half = b"{" + b" " * ((INLINE_LIMIT_BYTES - words) // 2 - 2) + b"}"
    most = [(job(1, 2), half), (job(3, 4), half)]
    assert fits(most)
    assert unpack(decode(pack(most, 0.5)))[1] == [(1, 2, half), (3, 4, half)]
    assert not fits([(job(1, 2), half), (job(3, 4), half + b" ")])


DEEP = b'{"a":' * 500 + b"1" + b"}" * 500


@pytest.mark.parametrize("said", [b"{nothing}", b"{\xff}", b'{"a":1}{"b":2}', DEEP])
def test_an_answer_that_is_no_json_fails_who_reads_it(said: bytes) -> None:
    with pytest.raises(ApiError, match="engine_error"):
        Answer(said, "a model", 0).read()


def test_an_answer_that_came_as_an_object_is_json_as_well() -> None:
    assert Answer({"a": "\u00e4"}, "a model", 0).data == b'{"a":"\\u00e4"}'
