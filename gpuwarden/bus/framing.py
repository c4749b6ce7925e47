# SPDX-License-Identifier: Apache-2.0
"""From a stream of bytes to whole messages, in turn by sender. Pure: no socket, no parsing.

Stock dbus-next parses as it reads, until the socket is empty: one flooding client stalls the loop
for as long as it likes (measured: a flood of 4 s, a stall of 5 s), and one message of 32 MB for
4 to 5 s. Here bytes become frames (cheap), frames wait in one queue per calling client, and the
connection parses a few each turn of the loop.
"""

import struct
from collections import OrderedDict, deque
from typing import NamedTuple

# No call of ours carries more than a few words. Answers of systemd (its list of units) reach a few
# hundred kB. Parsing costs about 0.15 s a MiB (measured: 4 to 5 s for 32 MB).
MAX_CALL_BYTES = 64 * 1024
MAX_OTHER_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024
# dbus-daemon lets a client of the system bus wait for 128 answers at once; more than twice that
# from one client can only be calls that want none.
MAX_WAITING_PER_SENDER = 256

_FIXED_HEADER_BYTES = 16
_METHOD_CALL = 1
_NO_REPLY_EXPECTED = 1
_PROTOCOL_VERSION = 1
_LITTLE = struct.Struct("<III")  # length of the body, serial, length of the header fields
_BIG = struct.Struct(">III")
# A header field is (byte code, variant): code 7 is SENDER, its variant's signature is "s". These
# four bytes can't occur elsewhere in a header: no name or path holds control characters. The bus
# daemon writes the field itself, so that no client can lie in it.
_SENDER_FIELD = b"\x07\x01s\x00"


class FramingError(Exception):
    """The stream is not D-Bus: there is no way to find the next message."""


class Frame(NamedTuple):
    """One message, unparsed.

    ``body_offset`` is where its body begins. ``oversized``: the body was too long and is gone.
    """

    data: bytes
    body_offset: int
    sender: str
    is_call: bool
    oversized: bool = False

    @property
    def byte_order(self) -> str:
        """The struct prefix of this frame's byte order."""
        return _byte_order(self.data[0])[0]

    @property
    def wants_reply(self) -> bool:
        """Whether its sender waits for an answer."""
        return not self.data[2] & _NO_REPLY_EXPECTED

    def header(self) -> bytes:
        """The header as a message of its own, with an empty body."""
        size = struct.pack(f"{self.byte_order}I", 0)
        return self.data[:4] + size + self.data[8 : self.body_offset]


class FrameReader:
    """Cuts a stream into frames; holds back an incomplete one until its rest comes.

    Its speed bounds how long one client's flood delays another's call: 3 microseconds a message.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skip_bytes = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes. Raises FramingError if this is not D-Bus."""
        data = self._rest + data
        frames: list[Frame] = []
        at = 0
        while True:
            skipped = min(self._skip_bytes, len(data) - at)
            self._skip_bytes -= skipped
            at += skipped
            taken = self._take(data, at, frames)
            if not taken and not self._skip_bytes:
                break
            at += taken
            if at == len(data):
                break
        self._rest = data[at:]
        return frames

    def _take(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Append the message at ``at`` and give its length; 0 if it is not complete yet."""
        if len(data) - at < _FIXED_HEADER_BYTES:
            return 0
        order, header = _byte_order(data[at])
        body_bytes: int
        fields_bytes: int
        body_bytes, _, fields_bytes = header.unpack_from(data, at + 4)
        if data[at + 3] != _PROTOCOL_VERSION:
            raise FramingError(f"protocol version {data[at + 3]}, expected {_PROTOCOL_VERSION}")
        body_offset = _FIXED_HEADER_BYTES + (fields_bytes + 7) // 8 * 8
        if body_offset > MAX_HEADER_BYTES:
            # Not even worth an answer: nothing that we export has a path of 32 kB.
            self._skip_bytes = body_offset + body_bytes
            return 0
        is_call = data[at + 1] == _METHOD_CALL
        size = body_offset + body_bytes
        oversized = size > (MAX_CALL_BYTES if is_call else MAX_OTHER_BYTES)
        if oversized:
            size = body_offset
        if len(data) - at < size:
            return 0
        self._skip_bytes = body_bytes if oversized else 0
        message = data[at : at + size]
        sender = _sender(message, order, body_offset)
        frames.append(Frame(message, body_offset, sender, is_call, oversized))
        return size


class FairQueue:
    """Frames waiting for their turn: each calling client in turn, all answers and signals in order.

    Answers and signals share one line, because their order among senders matters (a new owner of a
    name is announced by the bus before its first signal).
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Frame]] = OrderedDict()
        self._count = 0
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return self._count

    def put(self, frame: Frame) -> bool:
        """Queue ``frame``; False, and not queued, if its caller has too many waiting."""
        key = frame.sender if frame.is_call else ""
        line = self._lines.setdefault(key, deque())
        if frame.is_call and len(line) >= MAX_WAITING_PER_SENDER:
            return False
        line.append(frame)
        self._count += 1
        self.waiting_bytes += len(frame.data)
        return True

    def take(self) -> Frame:
        """The next frame in turn. Raises KeyError if there is none."""
        key, line = self._lines.popitem(last=False)
        frame = line.popleft()
        if line:
            self._lines[key] = line
        self._count -= 1
        self.waiting_bytes -= len(frame.data)
        return frame


def _byte_order(mark: int) -> tuple[str, struct.Struct]:
    """The struct prefix of a byte order mark, and the header's three integers in it."""
    if mark == ord("l"):
        return "<", _LITTLE
    if mark == ord("B"):
        return ">", _BIG
    raise FramingError(f"byte order mark {mark:#x}, expected 'l' or 'B'")


def _sender(data: bytes, order: str, body_offset: int) -> str:
    found = data.find(_SENDER_FIELD, _FIXED_HEADER_BYTES, body_offset)
    if found < 0:
        return ""
    start = found + len(_SENDER_FIELD) + 4
    (length,) = struct.unpack_from(f"{order}I", data, start - 4)
    return data[start : start + length].decode("ascii", "replace")
