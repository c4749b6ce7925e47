# SPDX-License-Identifier: Apache-2.0
"""How a prepared request goes from a CPU process to the GPU process.

Pickle protocol 5 keeps large buffers apart. A small result lies in the record itself, a larger
one in an anonymous file that travels as a descriptor: written once, mapped once, gone with its
last user. O_TMPFILE and not memfd_create, which the Pythons of conda lack.
"""

import mmap
import os
import pickle
from typing import Any, Dict, List, Optional, Tuple

from gpuwarden.worker.frames import INLINE_LIMIT_BYTES

SHARED_MEMORY = "/dev/shm"
ALIGNMENT_BYTES = 64  # a cache line; wide enough for every vector load


class HandoverError(Exception):
    """A result cannot go over; the text says why."""


def pack(value: Any) -> Tuple[Dict[str, Any], bytes, Optional[int]]:
    """A record's meta and body, or meta and a file descriptor (the caller's to close).

    Raises HandoverError where the value can't be pickled or shared memory is full.
    """
    buffers: List[pickle.PickleBuffer] = []
    try:
        head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
    except Exception as error:  # pickling runs the engine's own code: it may raise anything
        raise HandoverError(
            f"preprocess() must return something picklable: {type(error).__name__}"
        ) from error
    parts = [memoryview(head), *views]
    offsets, total = _layout([len(part) for part in parts])
    meta = {"parts": [len(part) for part in parts]}
    if total <= INLINE_LIMIT_BYTES:
        body = bytearray(total)
        for offset, part in zip(offsets, parts):
            body[offset : offset + len(part)] = part
        return meta, bytes(body), None
    return meta, b"", _write_file(offsets, parts, total)


def unpack(meta: Dict[str, Any], body: bytes, descriptor: Optional[int]) -> Any:
    """The value of a record; owns the descriptor. Buffers in it are writable.

    The sender is this worker's own child of the same user, hence pickle is safe. Raises
    HandoverError where the engine's classes can't be rebuilt.
    """
    offsets, total = _layout(meta["parts"])
    if descriptor is None:
        whole = memoryview(bytearray(body))
    else:
        try:
            mapping = mmap.mmap(descriptor, total)
            mapping.madvise(mmap.MADV_DONTDUMP)
            whole = memoryview(mapping)
        finally:
            os.close(descriptor)
    parts = [whole[offset : offset + length] for offset, length in zip(offsets, meta["parts"])]
    try:
        return pickle.loads(parts[0], buffers=parts[1:])
    except Exception as error:  # unpickling runs the engine's own code: it may raise anything
        raise HandoverError(
            f"the result of preprocess() can't be rebuilt: {type(error).__name__}"
        ) from error


def _layout(lengths: List[int]) -> Tuple[List[int], int]:
    offsets, end = [], 0
    for length in lengths:
        offsets.append(end)
        end += -(-length // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return offsets, end


def _write_file(offsets: List[int], parts: List[memoryview], total: int) -> int:
    try:
        descriptor = os.open(
            SHARED_MEMORY, os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise HandoverError(f"no file can be made in {SHARED_MEMORY}: {error.strerror}") from error
    try:
        os.ftruncate(descriptor, total)
        for offset, part in zip(offsets, parts):
            done = 0
            while done < len(part):
                done += os.pwrite(descriptor, part[done:], offset + done)
    except OSError as error:
        os.close(descriptor)
        raise HandoverError(
            f"{total} bytes find no room in {SHARED_MEMORY}: {error.strerror}"
        ) from error
    return descriptor
