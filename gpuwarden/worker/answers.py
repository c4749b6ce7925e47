# SPDX-License-Identifier: Apache-2.0
"""The answers of a batch in one frame, each as the JSON that its caller gets.

Most answers are a small JSON object, and those of a batch are made together. In a RESULT of its own
each would become part of that frame's JSON, be read there, and be written once more. So they travel
in an ANSWERS, which has no meta: its body is the seconds that they took, then whose each is and how
long, then their JSON, one after the other. The gateway hands on what it doesn't have to read.

A worker sends it only where the gateway's WELCOME says ``"answers": 2``: after an upgrade workers
of the former version go on, and one that knows another form of it sends RESULTs. The gateway and
the worker both import this module: standard library only, Python 3.9 and newer.
"""

import struct
from typing import List, Sequence, Tuple

from gpuwarden.worker.frames import INLINE_LIMIT_BYTES, Frame, FrameError, FrameType, record_of

ANSWERS = int(FrameType.ANSWERS)
FORM = 2  # ``true`` was the first, whose meta said in JSON whose they are
Packed = Tuple[int, int, bytes]  # request, lease (see Frame), a JSON object in ASCII
_SECONDS = struct.Struct("<d")
_WHOSE = struct.Struct("<QQI")  # request, lease, bytes


def pack(jobs: Sequence[Tuple[Frame, bytes]], predict_seconds: float) -> bytes:
    """The ANSWERS of a batch, or of a part of one that ran together, as a record.

    :param jobs: each JOB with its answer.
    """
    parts = [_SECONDS.pack(predict_seconds)]
    contents = []
    for job, data in jobs:
        parts.append(_WHOSE.pack(job.request, job.lease, len(data)))
        contents.append(data)
    parts += contents
    return record_of(ANSWERS, len(jobs), (0, 0, jobs[0][0].batch), b"", b"".join(parts))


def fits(jobs: Sequence[Tuple[Frame, bytes]]) -> bool:
    """Whether one frame holds them."""
    size = _SECONDS.size
    for _, data in jobs:
        size += _WHOSE.size + len(data)
    return size <= INLINE_LIMIT_BYTES


def unpack(frame: Frame) -> Tuple[float, List[Packed]]:
    """The seconds and the answers of an ANSWERS. Raises FrameError where ``pack`` made none."""
    body, first, place = frame.body, _SECONDS.size, _SECONDS.size + frame.count * _WHOSE.size
    if frame.meta or place > len(body):
        raise FrameError("ANSWERS that don't say whose they are")
    found: List[Packed] = []
    for request, lease, length in _WHOSE.iter_unpack(body[first:place]):
        data = body[place : place + length]
        place += length
        if len(data) != length:
            raise FrameError("ANSWERS that are longer than their frame")
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise FrameError("an answer that is no JSON object")
        found.append((request, lease, data))
    if place != len(body):
        raise FrameError("ANSWERS that are shorter than their frame")
    return _SECONDS.unpack_from(body)[0], found
