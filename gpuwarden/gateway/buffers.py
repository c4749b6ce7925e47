# SPDX-License-Identifier: Apache-2.0
"""Buffers for bodies: sealed memfds, made here only, lent to workers by descriptor.

A worker can map a buffer but never write, resize or unseal it. Buffers keep their pages and are
used again, since a fresh 32 MiB costs 8192 page faults (19 ms) and a used one none. What a caller
sent is zeroed soon after; where another body comes before that, it overwrites what it takes, and
the rest is zeroed first, so that no worker is ever lent a byte of a former caller's. A buffer that
a dead worker had mapped is not used again.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from gpuwarden.gateway.hands import zero
from gpuwarden.gateway.lanes import Lanes

SMALLEST_CLASS_BYTES = 1 << 20
SCRUB_STEP_BYTES = 4 << 20  # 0.2 to 0.5 ms of memset: what a small request may have to wait
# On a busy node the next body is there by then, and overwrites what the processor's caches hold
# still: a tenth to a fifth less CPU for 32 MiB, sent again and again by one client.
SCRUB_AFTER_SECONDS = 0.1
F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; Python's fcntl lacks it
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | F_SEAL_FUTURE_WRITE


def class_bytes(length: int) -> int:
    """Size of the buffer that takes a body of ``length`` bytes: a power of two from 1 MiB."""
    return max(SMALLEST_CLASS_BYTES, 1 << (length - 1).bit_length())


def largest_class_bytes(pool_bytes: int) -> int:
    """Size of the largest buffer that fits into a pool of ``pool_bytes``; 0 if none does."""
    if pool_bytes < SMALLEST_CLASS_BYTES:
        return 0
    return 1 << (pool_bytes.bit_length() - 1)


@dataclass(eq=False)
class Buffer:
    """One memfd and the gateway's writable mapping of it.

    ``holds`` counts who still needs its content: the request, and each lease of a worker on it.
    ``is_fresh``: its first body is still to come, or just coming: its pages aren't there yet.
    """

    number: int
    size: int
    descriptor: int
    view: memoryview
    holds: int = 0
    used_bytes: int = 0  # from the start: what may hold anything but zeroes
    condemned: bool = False
    is_fresh: bool = True

    def destroy(self) -> None:
        """Give the memory back to the kernel, once no worker maps it any more either."""
        self.view.release()  # the mapping goes with its last view
        os.close(self.descriptor)


def create_buffer(number: int, size: int) -> Buffer:
    """A new sealed buffer. Raises OSError where memory or descriptors are used up."""
    descriptor = os.memfd_create("gpuwarden-body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        mapping = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        mapping.madvise(mmap.MADV_DONTDUMP)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return Buffer(number, size, descriptor, memoryview(mapping))


@dataclass
class BufferPool:
    """All buffers, bounded in bytes.

    :param limit_bytes: sizes of all buffers together stay within this.
    :param call_soon: runs a function in a later turn of the event loop (zeroing goes in steps).
    :param call_later: runs a function after so many seconds.
    :param beside: whether threads zero what takes more than one step, and then call ``call_soon``.
    :ivar on_freed: called when a buffer is not in use any more.
    :ivar lanes: in which large bodies come in.
    """

    limit_bytes: int
    call_soon: Callable[[Callable[[], None]], object]
    call_later: Callable[[float, Callable[[], None]], object]
    on_retired: Callable[[Buffer], None] = lambda buffer: None
    on_freed: Callable[[], None] = lambda: None
    beside: bool = False
    total_bytes: int = 0
    lanes: Lanes = field(default_factory=Lanes)
    _last_number: int = 0
    _clean: dict[int, list[Buffer]] = field(default_factory=dict)
    _dirty: list[Buffer] = field(default_factory=list)
    _in_use: dict[int, Buffer] = field(default_factory=dict)
    _zeroed: tuple[Buffer, Future[None]] | None = None  # by a thread, just now
    _scrubbing: bool = False

    @property
    def in_use_bytes(self) -> int:
        """Sizes of the buffers that hold a body now."""
        return sum(buffer.size for buffer in self._in_use.values())

    def acquire(self, length: int) -> Buffer | None:
        """A buffer, held once; None when the pool has no room.

        :param length: that many bytes the caller overwrites, all of them, before it lends them to
            anybody: they may be a former caller's. Behind them it is zero.
        """
        buffer = self._take_idle(length)
        if buffer is None:
            size = class_bytes(length)
            while self.total_bytes + size > self.limit_bytes:
                if not self._evict_one() and not self._wait_for_zeroes():
                    return None
            self._last_number += 1
            buffer = create_buffer(self._last_number, size)
            self.total_bytes += size
        buffer.holds = 1
        buffer.used_bytes = length
        self._in_use[buffer.number] = buffer
        return buffer

    def hold(self, buffer: Buffer) -> None:
        """One more needs the content."""
        buffer.holds += 1

    def release(self, buffer: Buffer) -> None:
        """One less needs the content; the last one sends the buffer to be zeroed."""
        buffer.holds -= 1
        if buffer.holds > 0:
            return
        del self._in_use[buffer.number]
        self.on_freed()
        buffer.is_fresh = False
        if buffer.condemned:
            self._retire(buffer)
            return
        self._dirty.append(buffer)
        if not self._scrubbing:
            self._scrubbing = True
            self.call_later(SCRUB_AFTER_SECONDS, self._scrub_some)

    def condemn(self, numbers: Iterable[int]) -> None:
        """Never use these again: a worker that had mapped them died."""
        doomed = set(numbers)
        for number in doomed & self._in_use.keys():
            self._in_use[number].condemned = True
        if self._zeroed is not None and self._zeroed[0].number in doomed:
            self._zeroed[0].condemned = True
        for idle in (self._dirty, *self._clean.values()):
            for buffer in [one for one in idle if one.number in doomed]:
                idle.remove(buffer)
                self._retire(buffer)

    def close(self) -> None:
        """Free every idle buffer (at the end of the process)."""
        self._wait_for_zeroes()
        self.lanes.hands.shutdown(wait=False)
        self.beside = False
        while self._evict_one():
            pass

    def _take_idle(self, length: int) -> Buffer | None:
        """The one that was used last, if little of it is to be zeroed, or else a clean one."""
        size = class_bytes(length)
        clean = self._clean.get(size)
        last = next((buffer for buffer in reversed(self._dirty) if buffer.size == size), None)
        if last is None or (clean and last.used_bytes - length > SCRUB_STEP_BYTES):
            return clean.pop() if clean else None
        self._dirty.remove(last)
        zero(last.view[length : last.used_bytes])
        return last

    def _evict_one(self) -> bool:
        for idle in (self._dirty, *self._clean.values()):
            if idle:
                self._retire(idle.pop(0))
                return True
        return False

    def _retire(self, buffer: Buffer) -> None:
        self.total_bytes -= buffer.size
        self.on_retired(buffer)
        buffer.destroy()

    def _scrub_some(self) -> None:
        if self.beside and self._dirty and self._dirty[0].used_bytes > SCRUB_STEP_BYTES:
            buffer = self._dirty.pop(0)
            zeroing = self.lanes.hands.submit(zero, buffer.view[: buffer.used_bytes])
            self._zeroed = buffer, zeroing
            zeroing.add_done_callback(lambda done: self.call_soon(self._go_on_scrubbing))
            return
        if self._dirty and scrub(self._dirty[0]):
            buffer = self._dirty.pop(0)
            self._clean.setdefault(buffer.size, []).append(buffer)
        self._scrubbing = bool(self._dirty)
        if self._scrubbing:
            self.call_soon(self._scrub_some)

    def _go_on_scrubbing(self) -> None:
        """A thread is through with a buffer, which may have been waited for already."""
        self._wait_for_zeroes()
        self._scrub_some()

    def _wait_for_zeroes(self) -> bool:
        """Have what a thread zeroes be idle again; False where there is none."""
        if self._zeroed is None:
            return False
        (buffer, zeroing), self._zeroed = self._zeroed, None
        zeroing.result()
        buffer.used_bytes = 0
        if buffer.condemned:
            self._retire(buffer)
        else:
            self._clean.setdefault(buffer.size, []).append(buffer)
        return True


def scrub(buffer: Buffer) -> bool:
    """Zero one step of what was used, from its end; True when all of it is zero."""
    start = max(0, buffer.used_bytes - SCRUB_STEP_BYTES)
    zero(buffer.view[start : buffer.used_bytes])
    buffer.used_bytes = start
    return start == 0
