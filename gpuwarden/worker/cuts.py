# SPDX-License-Identifier: Apache-2.0
"""Takes the images out of a JSON body before anything parses it.

A 32 MB image is 43 MB of base64 in a JSON string. json.loads would copy it three times; here it
stays where it lies, and a name that nobody can guess stands in its place. What is cut is a whole
JSON string that begins with ``data:`` and has ``;base64,`` near its start, nothing else.
"""

import json
import re
import secrets
from typing import Dict, List, Optional, Tuple

MARK = b";base64,"
OPENING = b'"data:'
HEAD_BYTES = 128  # from the string's start to the mark: a media type is shorter
WINDOW_BYTES = 256 << 10  # searched at once: stays in the CPU's cache
BEFORE_A_STRING = b":,[ \t\r\n"
MEDIA_TYPE = re.compile(rb"[A-Za-z0-9.+-]+\\?/[A-Za-z0-9.+-]+(?:;[A-Za-z0-9=.+-]+)*")


class Cuts:
    """What was cut out of one body, by the name that stands in its place."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(16)
        self._cuts: Dict[str, Tuple[str, memoryview]] = {}

    def add(self, media_type: str, payload: memoryview) -> str:
        """The name of one more."""
        name = f"{self._nonce}:{len(self._cuts)}"
        self._cuts[name] = (media_type, payload)
        return name

    def get(self, name: str) -> Optional[Tuple[str, memoryview]]:
        """Media type and base64 of a cut; None for every other text."""
        return self._cuts.get(name)

    def restored(self, text: str) -> str:
        """The text as its sender wrote it. Raises ValueError where what was cut is no JSON."""
        cut = self._cuts.get(text)
        if cut is None:
            return text
        payload: str = json.loads(b'"' + bytes(cut[1]) + b'"')
        return f"data:{cut[0]};base64,{payload}"


def cut_images(body: memoryview) -> Tuple[bytes, Cuts]:
    """The body without its images, and these."""
    cuts = Cuts()
    kept: List[bytes] = []
    copied = position = 0
    while True:
        mark = find(body, MARK, position)
        if mark < 0:
            kept.append(bytes(body[copied:]))
            return b"".join(kept), cuts
        position = mark + len(MARK)
        found = _string_around(body, mark, copied)
        if found is None:
            continue
        start, media_type, end = found
        kept.append(bytes(body[copied : start + 1]))
        kept.append(cuts.add(media_type, body[position:end]).encode("ascii"))
        copied = position = end


def _string_around(body: memoryview, mark: int, earliest: int) -> Optional[Tuple[int, str, int]]:
    """Opening quote, media type and closing quote of the string that holds the mark."""
    begin = max(earliest, mark - HEAD_BYTES)
    head = bytes(body[begin:mark])
    quote = head.rfind(OPENING)
    if quote < 1 or head[quote - 1] not in BEFORE_A_STRING:
        return None
    media_type = head[quote + len(OPENING) :]
    if not MEDIA_TYPE.fullmatch(media_type):
        return None
    end = find(body, b'"', mark + len(MARK))
    if end < 0 or body[end - 1] == ord("\\"):
        return None
    return begin + quote, media_type.replace(b"\\", b"").decode("ascii").lower(), end


def find(body: memoryview, needle: bytes, start: int) -> int:
    """Offset of the first ``needle`` at or after ``start``; -1 if there is none."""
    for offset in range(start, len(body), WINDOW_BYTES):
        window = bytes(body[offset : offset + WINDOW_BYTES + len(needle) - 1])
        index = window.find(needle)
        if index >= 0:
            return offset + index
    return -1
