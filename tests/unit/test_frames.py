# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.frames import (
    HEADER,
    INLINE_LIMIT_BYTES,
    Frame,
    FrameError,
    FrameType,
    decode,
    encode,
)

numbers = st.integers(0, 2**64 - 1)
metas = st.dictionaries(st.text(max_size=20), st.text(max_size=50) | st.integers() | st.none())


@given(
    st.sampled_from(FrameType), numbers, numbers, numbers, st.integers(0, 65535), metas, st.binary()
)
def test_a_frame_survives_its_record(
    kind: FrameType,
    request: int,
    lease: int,
    batch: int,
    count: int,
    meta: dict[str, object],
    body: bytes,
) -> None:
    frame = Frame(kind, request, lease, batch, count, meta, body)
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_frame_error(record: bytes) -> None:
    try:
        decode(record)
    except FrameError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"", "shorter than a header"),
        (HEADER.pack(9, 1, 0, 0, 0, 0, 0), "protocol version 9"),
        (HEADER.pack(1, 1, 0, 50, 0, 0, 0), "meta of 50 bytes"),
        (HEADER.pack(1, 1, 0, 2, 0, 0, 0) + b"[]", "not an object"),
        (HEADER.pack(1, 1, 0, 1000, 0, 0, 0) + b"[" * 500 + b"]" * 500, "nested too deeply"),
    ],
)
def test_a_broken_record_says_what_is_wrong(record: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        decode(record)


def test_a_body_over_the_inline_limit_is_refused() -> None:
    with pytest.raises(FrameError, match="body of"):
        encode(Frame(FrameType.JOB, body=bytes(INLINE_LIMIT_BYTES + 1)))
