# SPDX-License-Identifier: Apache-2.0
"""Several frames in one record: what belongs together crosses the kernel, and wakes the peer, once.

For small requests that is dearer than all that is in their frames. A record of type ``TOGETHER`` is
a header, its ``count`` that of the records that follow in it, each behind its length. They mean the
same as one after the other. It carries no descriptors: a frame that brings some goes alone.

Each side does so only if the other has said that it takes them: HELLO and WELCOME say
``"together": true``. The gateway and the worker both import this module: standard library only,
Python 3.9 and newer.
"""

import struct
from typing import Iterator, List, Sequence

from gpuwarden.worker.frames import HEADER, PROTOCOL_VERSION, Frame, FrameError, FrameType, decode

LIMIT_BYTES = 128 * 1024  # of such a record: as much as the socket passes, and some in reserve
_TOGETHER = int(FrameType.TOGETHER)
_LENGTH = struct.Struct("<I")


def together(records: Sequence[bytes]) -> Iterator[bytes]:
    """The same records in as few as possible, in their order."""
    first = room = 0
    for place, record in enumerate(records):
        room += _LENGTH.size + len(record)
        if room > LIMIT_BYTES and place > first:
            yield _joined(records[first:place])
            first, room = place, _LENGTH.size + len(record)
    if records:
        yield _joined(records[first:])


def _joined(records: Sequence[bytes]) -> bytes:
    if len(records) == 1:
        return records[0]
    parts = [HEADER.pack(PROTOCOL_VERSION, FrameType.TOGETHER, len(records), 0, 0, 0, 0)]
    for record in records:
        parts += (_LENGTH.pack(len(record)), record)
    return b"".join(parts)


def frames_in(record: bytes) -> List[Frame]:
    """The frame, or the frames, of a record. Raises FrameError on anything that is none."""
    if len(record) < HEADER.size or record[1] != _TOGETHER:
        return [decode(record)]
    version, _, count, meta_length, *_ = HEADER.unpack_from(record)
    if version != PROTOCOL_VERSION or meta_length:
        raise FrameError(f"a record of several by version {version}, with a meta of {meta_length}")
    frames: List[Frame] = []
    rest, place = record[HEADER.size :], 0
    while place < len(rest):
        start = place + _LENGTH.size
        if start > len(rest):
            raise FrameError("a record among several is cut short")
        place = start + _LENGTH.unpack_from(rest, place)[0]
        if place > len(rest):
            raise FrameError("a record among several is cut short")
        frames.append(decode(rest[start:place]))
        if frames[-1].type == _TOGETHER:
            raise FrameError("a record of several within one")
    if len(frames) != count:
        raise FrameError(f"{len(frames)} records where there should be {count}")
    return frames
