# SPDX-License-Identifier: Apache-2.0
"""The answers of a batch in one frame, each as the JSON that its caller gets.

Most answers are a small JSON object, and those of a batch are made together. In a RESULT of its own
each would become part of that frame's JSON, be read there, and be written once more. So they travel
in an ANSWERS: its body is their JSON, one after the other, and its meta says whose each is. The
gateway hands on what it doesn't have to read.

A worker sends it only where the gateway's WELCOME says ``"answers": true``. The gateway and the
worker both import this module: standard library only, Python 3.9 and newer.
"""

from typing import List, Sequence, Tuple

from gpuwarden.worker.frames import INLINE_LIMIT_BYTES, Frame, FrameError, FrameType, record_of

ANSWERS = int(FrameType.ANSWERS)
Packed = Tuple[int, int, bytes]  # request, lease (see Frame), a JSON object in ASCII


def pack(jobs: Sequence[Tuple[Frame, bytes]], predict_seconds: float) -> bytes:
    """The ANSWERS of a batch, or of a part of one that ran together, as a record.

    :param jobs: each JOB with its answer.
    """
    # Written by hand: an encoder would cost as much as all else on an answer's way here.
    whose = ",".join([f"[{job.request},{job.lease},{len(data)}]" for job, data in jobs])
    meta = f'{{"predict_seconds":{round(predict_seconds, 6)!r},"answers":[{whose}]}}'
    body = b"".join([data for _, data in jobs])
    return record_of(ANSWERS, 0, (0, 0, jobs[0][0].batch), meta.encode("ascii"), body)


def fits(jobs: Sequence[Tuple[Frame, bytes]]) -> bool:
    """Whether one frame holds them."""
    size = 0
    for _, data in jobs:
        size += len(data)
    return size <= INLINE_LIMIT_BYTES


def unpack(frame: Frame) -> List[Packed]:
    """What an ANSWERS holds. Raises FrameError where it isn't what ``pack`` makes."""
    body, place = frame.body, 0
    found: List[Packed] = []
    try:
        for request, lease, length in frame.meta["answers"]:
            data = body[place : place + length]
            place += length
            if not (type(request) is type(lease) is int and len(data) == length):
                raise FrameError("ANSWERS that are longer than their frame")
            if not (data.startswith(b"{") and data.endswith(b"}")):
                raise FrameError("an answer that is no JSON object")
            found.append((request, lease, data))
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(f"ANSWERS are malformed ({type(error).__name__})") from error
    if place != len(body):
        raise FrameError("ANSWERS that are shorter than their frame")
    return found
