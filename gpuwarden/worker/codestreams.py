# SPDX-License-Identifier: Apache-2.0
"""The size that a JPEG or JPEG 2000 codestream names in its header."""

import re
import struct
from typing import Optional

JPEG_START = b"\xff\xd8\xff"
JPEG_2000_START = b"\xff\x4f\xff\x51"
# Markers of a frame's header: baseline to lossless but DHT, JPG and DAC, and JPEG-LS.
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
SCAN, END = 0xDA, 0xD9
ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a segment
# What lies between, decoders step over. Not \xff+: on a long run of them that takes its square.
MARKER = re.compile(b"\xff[\x01-\xfe]")
SEGMENTS_LIMIT = 100_000  # a real file has a few dozen


def pixels_of_codestream(data: memoryview) -> Optional[int]:
    """Columns times rows of a JPEG, JPEG-LS or JPEG 2000; None where its header doesn't tell."""
    start = bytes(data[:4])
    if start == JPEG_2000_START:
        if len(data) < 24:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", data, 8)
        return int(max(0, right - left) * max(0, bottom - top))
    return _pixels_of_jpeg(data) if start.startswith(JPEG_START) else None


def _pixels_of_jpeg(data: memoryview) -> Optional[int]:
    """The most that any frame header before the first scan says."""
    found: Optional[int] = None
    position = 2
    for _ in range(SEGMENTS_LIMIT):
        marked = MARKER.search(data, position)
        if marked is None or marked.end() + 7 > len(data):
            return found
        position, marker = marked.end(), data[marked.end() - 1]
        if marker in (SCAN, END):
            return found
        if marker in FRAMES:
            rows, columns = struct.unpack_from(">HH", data, position + 3)
            found = max(found or 0, rows * columns)
        if marker not in ALONE:
            position += int(struct.unpack_from(">H", data, position)[0])
    return found
