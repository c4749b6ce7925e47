# SPDX-License-Identifier: Apache-2.0
"""Large results: each in a memfd of its own, made here, written by one worker for one lease.

Sealed against any other size, so that a reader's mapping always has its pages, but not against
writing: its worker fills it, and may go on writing as long as it lives. So a buffer is used once
and destroyed after its caller has it: no other request's result ever lies in it, and what a worker
does to it late reaches nobody else. They are no part of the pool for bodies: a flood of images must
not keep finished work from its callers.
"""

import fcntl
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

OUTPUT_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class OutputPool:
    """Room for large results, bounded in bytes.

    :ivar on_freed: called when there is more room.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.in_use_bytes = 0
        self.on_freed: Callable[[], None] = lambda: None

    def can_hold(self, length: int) -> bool:
        """Whether there is room where nothing else is."""
        return whole_pages(length) <= self.limit_bytes

    def make(self, length: int) -> "OutputBuffer | None":
        """An empty buffer; None while there is no room. Raises OSError without memory."""
        size = whole_pages(length)
        if self.in_use_bytes + size > self.limit_bytes:
            return None
        descriptor = os.memfd_create("gpuwarden-result", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, OUTPUT_SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        self.in_use_bytes += size
        return OutputBuffer(self, size, descriptor)


def whole_pages(length: int) -> int:
    """What so many bytes take."""
    return -(-length // mmap.PAGESIZE) * mmap.PAGESIZE


@dataclass(eq=False)
class OutputBuffer:
    """One memfd; its owner destroys it."""

    pool: OutputPool
    size: int
    descriptor: int

    def view(self, length: int, *, writable: bool = False) -> memoryview:
        """Its first bytes; they stay as long as anybody has the view, destroyed or not."""
        access = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        mapping = mmap.mmap(self.descriptor, self.size, mmap.MAP_SHARED, access)
        mapping.madvise(mmap.MADV_DONTDUMP)
        return memoryview(mapping)[:length]

    def destroy(self) -> None:
        """Give it up; the kernel frees the memory when nobody has it any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self.pool.in_use_bytes -= self.size
            self.pool.on_freed()


@dataclass(eq=False)
class Output:
    """What a result has beside its JSON: in a buffer, or in ``inline`` where a frame brought it.

    :ivar part: what it is: ``answer``, ``text`` or ``file`` (see gpuwarden.worker.outputs).
    """

    part: str
    media_type: str
    length: int
    inline: bytes = b""
    buffer: OutputBuffer | None = None

    def view(self) -> memoryview:
        """Its bytes, not copied."""
        if self.buffer is None:
            return memoryview(self.inline)
        return self.buffer.view(self.length)

    def destroy(self) -> None:
        """Nobody needs it any more."""
        if self.buffer is not None:
            self.buffer.destroy()
