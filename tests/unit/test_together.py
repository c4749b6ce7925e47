# SPDX-License-Identifier: Apache-2.0
"""Frames that share a record are the same frames, in their order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.frames import (
    HEADER,
    INLINE_LIMIT_BYTES,
    PROTOCOL_VERSION,
    RECORD_LIMIT_BYTES,
    Frame,
    FrameError,
    FrameType,
    encode,
)
from gpuwarden.worker.together import frames_in, together

frames = st.builds(
    Frame,
    st.sampled_from([FrameType.JOB, FrameType.RESULT, FrameType.CHUNK]),
    *[st.integers(0, 1 << 40)] * 3,
    st.integers(0, 1 << 15),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.sampled_from([b"", b"image", b"x" * 5000, b"x" * INLINE_LIMIT_BYTES]),
)


@given(st.lists(frames, max_size=12))
def test_what_goes_together_comes_as_it_was(sent: list[Frame]) -> None:
    records = list(together([encode(frame) for frame in sent]))
    assert [frame for record in records for frame in frames_in(record)] == sent
    assert all(len(record) < RECORD_LIMIT_BYTES for record in records)


def test_what_is_small_shares_one_record_and_one_alone_stays_as_it_is() -> None:
    record = encode(Frame(FrameType.RESULT, 1, 2, meta={"ok": True}))
    assert len(list(together([record] * 64))) == 1
    assert list(together([record])) == [record]


def several(count: int, rest: bytes, version: int = PROTOCOL_VERSION, meta: int = 0) -> bytes:
    return HEADER.pack(version, FrameType.TOGETHER, count, meta, 0, 0, 0) + rest


BEAT = encode(Frame(FrameType.HEARTBEAT))
ONE = len(BEAT).to_bytes(4, "little") + BEAT


@pytest.mark.parametrize(
    "record",
    [
        several(2, ONE),
        several(1, ONE + ONE),
        several(1, ONE[:-1]),
        several(1, ONE + b"\x00"),
        several(1, ONE[:10]),
        several(1, b"\xff\xff\xff\xff" + BEAT),
        several(1, (len(ONE) + 32).to_bytes(4, "little") + several(1, ONE)),
        several(1, ONE, version=9),
        several(1, ONE, meta=2),
        b"",
    ],
)
def test_what_is_cut_or_nested_is_no_record(record: bytes) -> None:
    with pytest.raises(FrameError):
        frames_in(record)


def test_none_is_none() -> None:
    assert list(together([])) == []
    assert frames_in(several(0, b"")) == []
