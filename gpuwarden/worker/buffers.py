# SPDX-License-Identifier: Apache-2.0
"""Buffers lent by the gateway: descriptors in the worker, read-only mappings in CPU processes.

The gateway numbers its buffers anew whenever it starts, so the worker gives each its own number
for its CPU processes; that one never comes twice.
"""

import fcntl
import itertools
import mmap
import os
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence

F_GET_SEALS = 1034  # linux/fcntl.h; missing in Python's fcntl where the build's glibc is old
F_SEAL_SHRINK = 2

_numbers = itertools.count(1)


class BufferProblem(Exception):  # noqa: N818 - told to the gateway as a problem, not raised on
    """A body's buffer cannot be used; the text says why."""


class LentBuffer:
    """A gateway's buffer under the worker's own number."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.number = next(_numbers)
        self.descriptor = descriptor
        self.size = size
        self.closed = False  # its descriptor's number may belong to another file by then

    def close(self) -> None:
        """Give the descriptor back; mappings live on until they are retired too."""
        if not self.closed:
            self.closed = True
            os.close(self.descriptor)


@dataclass(frozen=True)
class Extent:
    """Where a body lies in a buffer."""

    buffer: LentBuffer
    offset: int
    length: int


class LentBuffers:
    """The buffers of one connection to the gateway, by the gateway's number."""

    def __init__(self) -> None:
        self._lent: Dict[int, LentBuffer] = {}

    def locate(self, body: Dict[str, int], descriptors: Sequence[int]) -> Extent:
        """The extent that a JOB's body describes; owns the descriptors. Raises BufferProblem."""
        number, offset, length = body.get("buffer"), body.get("offset", 0), body.get("length")
        spare = list(descriptors)
        try:
            if not _whole(number) or not _whole(offset) or not _whole(length):
                raise BufferProblem("body needs buffer, offset and length as whole numbers")
            if body.get("fd"):
                if len(spare) != 1:
                    raise BufferProblem(f"body announces a descriptor, {len(spare)} came")
                if body["buffer"] in self._lent:
                    raise BufferProblem(f"buffer {number} came again and was not retired before")
                self._lent[body["buffer"]] = _checked(spare[0], int(body.get("size", 0)))
                spare.clear()
        finally:
            for descriptor in spare:
                os.close(descriptor)
        known = self._lent.get(body["buffer"])
        if known is None:
            raise BufferProblem(f"buffer {number} was never sent on this connection")
        if body.get("offset", 0) + body["length"] > known.size:
            raise BufferProblem(f"body ends beyond the {known.size} bytes of buffer {number}")
        return Extent(known, body.get("offset", 0), body["length"])

    def retire(self, number: int) -> Optional[int]:
        """Close a buffer; its own number if it was known."""
        lent = self._lent.pop(number, None)
        if lent is None:
            return None
        lent.close()
        return lent.number

    def retire_all(self) -> List[int]:
        """Close every buffer; their own numbers."""
        return [own for own in map(self.retire, list(self._lent)) if own is not None]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _checked(descriptor: int, size: int) -> LentBuffer:
    if size < 1 or os.fstat(descriptor).st_size < size:
        raise BufferProblem(f"buffer is smaller than the {size} bytes announced")
    # A buffer that could shrink would kill the reader of its mapping with SIGBUS.
    try:
        seals = fcntl.fcntl(descriptor, F_GET_SEALS)
    except OSError as error:
        raise BufferProblem("buffer is no sealed memory file") from error
    if not seals & F_SEAL_SHRINK:
        raise BufferProblem("buffer is not sealed against shrinking")
    return LentBuffer(descriptor, size)


class MappedBuffers:
    """Read-only mappings of a CPU process, kept from one request to the next."""

    def __init__(self) -> None:
        self._mapped: Dict[int, mmap.mmap] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self._mapped)

    def add(self, number: int, descriptor: int, size: int) -> None:
        """Map a buffer; the descriptor is closed, the mapping doesn't need it."""
        try:
            mapping = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
            mapping.madvise(mmap.MADV_DONTDUMP)
            self._mapped[number] = mapping
        finally:
            os.close(descriptor)

    def view(self, number: int, offset: int, length: int) -> memoryview:
        """The bytes of a body, without a copy."""
        return memoryview(self._mapped[number])[offset : offset + length]

    def retire(self, number: int) -> bool:
        """Unmap; False if something still refers to it: it is then unmapped with the last one."""
        mapped = self._mapped.pop(number, None)
        if mapped is None:
            return True
        try:
            mapped.close()
        except BufferError:
            return False
        return True
