# SPDX-License-Identifier: Apache-2.0
"""The worker channel's frames: one SOCK_SEQPACKET record is one frame.

A frame is a 32-byte header, a JSON object (``meta``; none is an empty one) and, for small bodies,
the body itself.
Bodies over ``INLINE_LIMIT_BYTES`` travel in a sealed memfd whose descriptor rides on the record
(SCM_RIGHTS) the first time a worker meets that buffer; later frames name it by number only.

The gateway and the worker both import this module: standard library only, Python 3.9 and newer.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Dict, Tuple

from gpuwarden.worker.compact import compact_json, parse_json
from gpuwarden.worker.nesting import NESTING_LIMIT, nests_too_deep

PROTOCOL_VERSION = 1
INLINE_LIMIT_BYTES = 64 * 1024  # a record of 212,000 bytes passes by default; half kept in reserve
RECORD_LIMIT_BYTES = 192 * 1024
LEVELS_AROUND = 8  # of a frame's meta around the deepest answer; it has one or two
META_LIMIT_BYTES = 96 * 1024
HEARTBEAT_SECONDS = 2.0  # between two HEARTBEATs of a worker whose loop turns

HEADER = struct.Struct("<BBHIQQQ")


class FrameType(IntEnum):
    """Who sends what. Unknown types are ignored, so that an older peer survives a newer one."""

    # worker to gateway
    HELLO = 1  # protocol, worker number, pid, state, scheduling, max_batch, model, gpu_uuid,
    #            heartbeat_seconds: how often it is heard of; absent where it isn't;
    #            batch_pixels, batch_tokens: what a batch may have of them; absent: no matter;
    #            batch_mixed: true where it may have requests of all sizes and parameters;
    #            together: true where it takes records of several frames
    STATE = 2  # {"state": "loading" | "ready" | "draining", "error": text}; with scheduling,
    #            batch_pixels, batch_tokens and batch_mixed, which the engine says once it is loaded
    CREDIT = 3  # count: that many more requests are welcome
    RESULT = 4  # request, lease: {"ok": true, "answer": ...} or {"ok": false, "error": {...}};
    #             with "content" (length, media_type, part) where more lies in the frame's body, or
    #             in the buffer that LEND brought for this lease
    MEMORY = 5  # {"vram_reserved_bytes", "vram_allocated_bytes"}
    BYE = 6  # no more work, everything answered; the connection closes next
    HEARTBEAT = 7  # the loop turns
    PROBED = 8  # request: of the PROBE; {"outcome": a word of worker.canary, "detail": text}
    CHUNK = 9  # {"pieces": [{"request", "lease", "text", "terms"}, ...]}, for who streams
    JOINING = 10  # request, lease: {"joining": true} before its prefill, false when it is through
    BORROW = 11  # request, lease: {"length": bytes of a result that no frame holds}; LEND answers
    FIGURES = 12  # what allocator.FIGURES names, warning_threshold, shortages, shortages_alone;
    #               every five seconds, from engines that know
    SERVER = 13  # {"running", "waiting", "kv_cache_usage"}: what an engine's server says of itself
    ANSWERS = 14  # batch, count: the answers of requests that ran together (see worker.answers)
    # gateway to worker
    WELCOME = 32  # {"gateway": version, "results_bytes": its room for large results now,
    #               "together": true where it takes records of several frames,
    #               "answers": the form of ANSWERS that it takes}
    JOB = 33  # request, lease, batch, count = requests in this batch; meta holds the request:
    # "form" is "predict" (the body is the image; so it is where there is none) or "chat" (OpenAI's
    # JSON); "images" are buffers; "question" and "parameters" may be absent
    CANCEL = 34  # request, lease: the caller is gone
    DRAIN = 35  # finish what runs, then BYE
    RETIRE = 36  # {"buffer": number}: unmap it
    LIMIT = 37  # {"batch_limit": number, "thermal_state": a word}: run no more requests together;
    #             until the next LIMIT
    PROBE = 38  # request: a number of the gateway's; does the card still answer? PROBED tells
    LEND = 39  # request, lease: {"size": bytes} and a descriptor to write to, or {"error": {...}}
    RELIEVE = 40  # drop caches between two batches: memory runs short
    # in both directions
    TOGETHER = 64  # count: of the frames in it (see worker.together)


@dataclass  # not frozen: that would be the dearest step of a frame's way
class Frame:
    """One record; never changed once it is made.

    ``request`` numbers an accepted request; ``lease`` one attempt at it (a RESULT with another
    lease is stale and dropped); ``batch`` groups the JOBs that run together, ``count`` of them.
    """

    type: int
    request: int = 0
    lease: int = 0
    batch: int = 0
    count: int = 0
    meta: Dict[str, Any] = field(default_factory=dict)
    body: bytes = b""


class FrameError(Exception):
    """A record is not a frame; the text says why."""


def encode(frame: Frame) -> bytes:
    """The record of a frame. Raises FrameError if it would not fit into one record."""
    meta = compact_json(frame.meta).encode("ascii")
    numbers = (frame.request, frame.lease, frame.batch)
    return record_of(frame.type, frame.count, numbers, meta, frame.body)


def record_of(
    kind: int, count: int, numbers: Tuple[int, int, int], meta: bytes, body: bytes
) -> bytes:
    """The same of a frame's parts, its meta as JSON.

    :param numbers: request, lease, batch.
    """
    size = len(meta)
    if size > META_LIMIT_BYTES:
        raise FrameError(f"meta of {size} bytes is over the limit of {META_LIMIT_BYTES}")
    if len(body) > INLINE_LIMIT_BYTES:
        raise FrameError(f"body of {len(body)} bytes is over {INLINE_LIMIT_BYTES}")
    return HEADER.pack(PROTOCOL_VERSION, kind, count, size, *numbers) + meta + body


def decode(record: bytes) -> Frame:
    """The frame of a record. Raises FrameError on anything that is not one."""
    if len(record) < HEADER.size:
        raise FrameError(f"record of {len(record)} bytes is shorter than a header")
    version, kind, count, meta_length, request, lease, batch = HEADER.unpack_from(record)
    if version != PROTOCOL_VERSION:
        raise FrameError(f"protocol version {version}, this side speaks {PROTOCOL_VERSION}")
    end = HEADER.size + meta_length
    if end > len(record):
        raise FrameError(f"meta of {meta_length} bytes in a record of {len(record)}")
    if not meta_length:
        return Frame(kind, request, lease, batch, count, {}, record[end:])
    text = record[HEADER.size : end]
    if nests_too_deep(text, NESTING_LIMIT + LEVELS_AROUND):
        raise FrameError("meta is nested too deeply")
    try:
        meta = parse_json(text.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError(f"meta is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise FrameError(f"meta is a {type(meta).__name__}, not an object")
    return Frame(kind, request, lease, batch, count, meta, record[end:])
