"""From a stream of bytes to whole messages, in turn by sender. Pure: no socket, no parsing.

Stock dbus-next parses as it reads, until the socket is empty: one flooding client stalls the loop
for as long as it likes (measured: a flood of 4 s, a stall of 5 s), and one message of 32 MB for
4 to 5 s. Here bytes become frames (cheap), frames wait in one queue per calling client, and the
connection parses a few each turn of the loop.
"""

import struct
from collections import OrderedDict, deque
from dataclasses import dataclass

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
_PROTOCOL_VERSION = 1
# A header field is (byte code, variant): code 7 is SENDER, its variant's signature is "s". These
# four bytes can't occur elsewhere in a header: no name or path holds control characters. The bus
# daemon writes the field itself, so that no client can lie in it.
_SENDER_FIELD = b"\x07\x01s\x00"


class FramingError(Exception):
    """The stream is not D-Bus: there is no way to find the next message."""


@dataclass(frozen=True, slots=True)
class Frame:
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
        return _byte_order(self.data[0])

    def header(self) -> bytes:
        """The header as a message of its own, with an empty body."""
        size = struct.pack(f"{self.byte_order}I", 0)
        return self.data[:4] + size + self.data[8 : self.body_offset]


class FrameReader:
    """Cuts a stream into frames; holds back an incomplete one until its rest comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip_bytes = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes. Raises FramingError if this is not D-Bus."""
        self._buffer += data
        frames = []
        while self._discard() and (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _discard(self) -> bool:
        """Drop what is left of an oversized body; False while more of it is to come."""
        dropped = min(self._skip_bytes, len(self._buffer))
        del self._buffer[:dropped]
        self._skip_bytes -= dropped
        return self._skip_bytes == 0

    def _next(self) -> Frame | None:
        if len(self._buffer) < _FIXED_HEADER_BYTES:
            return None
        order = _byte_order(self._buffer[0])
        if self._buffer[3] != _PROTOCOL_VERSION:
            raise FramingError(f"protocol version {self._buffer[3]}, expected {_PROTOCOL_VERSION}")
        body_bytes, _, fields_bytes = struct.unpack_from(f"{order}III", self._buffer, 4)
        body_offset = _FIXED_HEADER_BYTES + (fields_bytes + 7) // 8 * 8
        is_call = self._buffer[1] == _METHOD_CALL
        limit = MAX_CALL_BYTES if is_call else MAX_OTHER_BYTES
        oversized = body_offset + body_bytes > limit
        if body_offset > MAX_HEADER_BYTES:
            # Not even worth an answer: nothing that we export has a path of 32 kB.
            self._skip_bytes = body_offset + body_bytes
            return self._next() if self._discard() else None
        if len(self._buffer) < (body_offset if oversized else body_offset + body_bytes):
            return None
        return self._take(order, body_offset, body_bytes, is_call, oversized)

    def _take(
        self, order: str, body_offset: int, body_bytes: int, is_call: bool, oversized: bool
    ) -> Frame:
        size = body_offset if oversized else body_offset + body_bytes
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._skip_bytes = body_bytes if oversized else 0
        sender = _sender(data, order, body_offset)
        return Frame(data, body_offset, sender, is_call, oversized)


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


def _byte_order(mark: int) -> str:
    if mark == ord("l"):
        return "<"
    if mark == ord("B"):
        return ">"
    raise FramingError(f"byte order mark {mark:#x}, expected 'l' or 'B'")


def _sender(data: bytes, order: str, body_offset: int) -> str:
    found = data.find(_SENDER_FIELD, _FIXED_HEADER_BYTES, body_offset)
    if found < 0:
        return ""
    start = found + len(_SENDER_FIELD) + 4
    (length,) = struct.unpack_from(f"{order}I", data, start - 4)
    return data[start : start + length].decode("ascii", "replace")
