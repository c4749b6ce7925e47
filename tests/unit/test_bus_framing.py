# SPDX-License-Identifier: Apache-2.0
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.bus.framing import (
    MAX_CALL_BYTES,
    MAX_HEADER_BYTES,
    MAX_WAITING_PER_SENDER,
    FairQueue,
    Frame,
    FrameReader,
    FramingError,
)
from gpuwarden.bus.library import Message, MessageType
from gpuwarden.bus.wire import parse_body, parse_header


def message_bytes(
    body: list[object], signature: str, sender: str | None, **fields: object
) -> bytes:
    """A message as the bus daemon delivers it: with its sender."""
    given_fields: dict[str, object] = {
        "destination": "org.gpuwarden1",
        "path": "/org/gpuwarden1",
        "interface": "org.gpuwarden1.Manager",
        "member": "GetStatus",
        **fields,
    }
    message = Message(signature=signature, body=body, serial=5, **given_fields)  # type: ignore[arg-type]  # fields by name
    data = bytes(message._marshall())
    return data if sender is None else with_sender(data, sender)


def with_sender(data: bytes, sender: str) -> bytes:
    (fields_bytes,) = struct.unpack_from("<I", data, 12)
    fields = data[16 : 16 + fields_bytes]
    fields += b"\0" * (-len(fields) % 8)
    fields += b"\x07\x01s\0" + struct.pack("<I", len(sender)) + sender.encode() + b"\0"
    padding = b"\0" * (-len(fields) % 8)
    body = data[16 + (fields_bytes + 7) // 8 * 8 :]
    return data[:12] + struct.pack("<I", len(fields)) + fields + padding + body


MESSAGES = st.lists(
    st.tuples(st.text(max_size=40), st.sampled_from([":1.1", ":1.2", ":1.234567"])),
    min_size=1,
    max_size=8,
)


@given(MESSAGES, st.data())
@settings(max_examples=60, deadline=None)
def test_messages_come_out_whole_however_the_stream_is_cut(
    messages: list[tuple[str, str]], data: st.DataObject
) -> None:
    stream = b"".join(message_bytes([text], "s", sender) for text, sender in messages)
    reader = FrameReader()
    frames: list[Frame] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        frames += reader.feed(stream[:cut])
        stream = stream[cut:]
    seen = []
    for frame in frames:
        message = parse_header(frame)
        (text,) = parse_body(frame, message)
        seen.append((text, frame.sender))
        assert message.sender == frame.sender
    assert seen == messages


def test_big_endian_senders_are_understood() -> None:
    fields = (
        b"".join(
            code
            + b"\x01"
            + kind
            + b"\0"
            + struct.pack(">I", len(text))
            + text
            + b"\0"
            + b"\0" * (-(4 + 4 + len(text) + 1) % 8)
            for code, kind, text in (
                (b"\x01", b"o", b"/a"),
                (b"\x03", b"s", b"Go"),
                (b"\x07", b"s", b":1.9"),
            )
        ).rstrip(b"\0")
        + b"\0"
    )
    head = b"B\x01\0\x01" + struct.pack(">III", 0, 7, len(fields))
    (frame,) = FrameReader().feed(head + fields + b"\0" * (-len(fields) % 8))
    assert (frame.sender, parse_header(frame).member) == (":1.9", "Go")


def test_an_oversized_body_is_dropped_and_the_next_message_is_read() -> None:
    big = message_bytes(["x" * (MAX_CALL_BYTES + 1)], "s", ":1.1")
    small = message_bytes(["y"], "s", ":1.1")
    reader = FrameReader()
    frames = [
        frame
        for byte in range(0, len(big + small), 1000)
        for frame in reader.feed((big + small)[byte : byte + 1000])
    ]
    assert [frame.oversized for frame in frames] == [True, False]
    assert parse_header(frames[0]).member == "GetStatus"
    assert len(frames[0].data) < 1000


def test_an_answer_may_be_larger_than_a_call() -> None:
    data = message_bytes(
        ["x" * (MAX_CALL_BYTES + 1)],
        "s",
        ":1.1",
        message_type=MessageType.METHOD_RETURN,
        reply_serial=3,
    )
    (frame,) = FrameReader().feed(data)
    assert not frame.oversized


def test_an_oversized_header_is_skipped_without_being_kept() -> None:
    path = "/" + "a" * MAX_HEADER_BYTES
    reader = FrameReader()
    assert reader.feed(message_bytes([], "", ":1.1", path=path)) == []
    assert len(reader.feed(message_bytes([], "", ":1.1"))) == 1


@pytest.mark.parametrize("data", [b"X\x01\0\x01" + bytes(12), b"l\x01\0\x07" + bytes(12)])
def test_a_stream_that_is_not_dbus_is_refused(data: bytes) -> None:
    with pytest.raises(FramingError):
        FrameReader().feed(data)


def frame_of(sender: str, name: bytes, *, is_call: bool = True) -> Frame:
    return Frame(name, 0, sender, is_call)


def test_callers_take_turns_whoever_came_first() -> None:
    queue = FairQueue()
    for number in range(3):
        queue.put(frame_of(":1.1", b"flood%d" % number))
    queue.put(frame_of(":1.2", b"other"))
    assert [queue.take().data for _ in range(4)] == [b"flood0", b"other", b"flood1", b"flood2"]
    assert (len(queue), queue.waiting_bytes) == (0, 0)


def test_one_callers_share_is_bounded_and_the_others_is_not_touched() -> None:
    queue = FairQueue()
    taken = [queue.put(frame_of(":1.1", b"x")) for _ in range(MAX_WAITING_PER_SENDER + 3)]
    assert taken.count(False) == 3
    assert queue.put(frame_of(":1.2", b"y"))


def test_answers_and_signals_keep_their_order_and_are_never_refused() -> None:
    queue = FairQueue()
    names = [b"%d" % number for number in range(MAX_WAITING_PER_SENDER + 10)]
    for number, name in enumerate(names):
        assert queue.put(frame_of(f":1.{number % 3}", name, is_call=False))
    assert [queue.take().data for _ in names] == names
