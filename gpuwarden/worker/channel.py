# SPDX-License-Identifier: Apache-2.0
"""SOCK_SEQPACKET connections that carry frames and descriptors, blocking and for asyncio."""

import array
import asyncio
import os
import socket
import threading
from collections import deque
from contextlib import contextmanager
from typing import Callable, Deque, Iterator, List, Optional, Sequence, Tuple, TypeVar, Union

from gpuwarden.worker.frames import RECORD_LIMIT_BYTES, Frame, FrameError, encode
from gpuwarden.worker.together import frames_in, together

DESCRIPTOR_LIMIT = 16  # a JOB brings its body's and those of its images; more is a peer that errs
Read = TypeVar("Read")
Received = Union[str, Tuple[List[Frame], List[int]]]  # a record's, or why no more come
_CUT_SHORT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)  # as numbers: an enum's sums are slow
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_ANCILLARY_BYTES = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * array.array("i").itemsize)


def send_record(connection: socket.socket, record: bytes, descriptors: Sequence[int]) -> None:
    """Send one record. Raises OSError, BlockingIOError among them."""
    if not descriptors:
        connection.send(record, socket.MSG_NOSIGNAL)  # half of what sendmsg() costs
        return
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    connection.sendmsg([record], ancillary, socket.MSG_NOSIGNAL)


class Inbox:
    """Receives records into memory of its own.

    ``recvmsg()`` would have that made anew for each: so large a block is mapped, touched and
    unmapped, which costs five times as much as the rest.
    """

    def __init__(self) -> None:
        self._record = memoryview(bytearray(RECORD_LIMIT_BYTES))
        self._records = [self._record]

    def receive(
        self, connection: socket.socket, read: Callable[[bytes], Read]
    ) -> Optional[Tuple[Read, List[int]]]:
        """What ``read`` makes of the next record, and its descriptors; None at the end.

        The descriptors are the caller's to close. Raises FrameError for a record that is none
        (its descriptors are closed), and OSError.
        """
        size, ancillary, flags, _ = connection.recvmsg_into(
            self._records, _ANCILLARY_BYTES, _CLOSE_ON_EXEC
        )
        descriptors = _descriptors_of(ancillary) if ancillary else []
        if not size:
            close_all(descriptors)
            return None
        try:
            if flags & _CUT_SHORT:
                raise FrameError(
                    f"record over {RECORD_LIMIT_BYTES} bytes or {DESCRIPTOR_LIMIT} descriptors"
                )
            return read(bytes(self._record[:size])), descriptors
        except FrameError:
            close_all(descriptors)
            raise


def _descriptors_of(ancillary: List[Tuple[int, int, bytes]]) -> List[int]:
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return list(numbers)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody took."""
    for descriptor in descriptors:
        os.close(descriptor)


class Channel:
    """One connection on the running loop: frames in by callback, frames out without waiting.

    ``on_frame`` owns the descriptors it gets. ``on_closed`` is called once with the reason,
    unless this side closed. Records that the peer is slow to take wait in order.

    :ivar packs: whether the peer takes several frames in one record.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_frame: Callable[[Frame, List[int]], None],
        on_closed: Callable[[str], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._waiting: Deque[Tuple[bytes, List[int]]] = deque()
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._held: Optional[List[bytes]] = None
        self._inbox = Inbox()
        self._closing = threading.Lock()
        self.packs = False
        self.closed = False
        self._loop.add_reader(connection.fileno(), self._readable)

    def send(self, frame: Frame, descriptors: Sequence[int] = ()) -> None:
        """Send a frame now or when the peer has room. Raises FrameError if it is too large."""
        record = encode(frame)
        if self._held is not None and not descriptors:
            self._held.append(record)
        elif not self.closed:
            self._leave(record, descriptors)

    def send_from_thread(self, record: bytes) -> bool:
        """Send a record, from any thread; False where that can't be at once, and the loop's to try.

        It overtakes nothing but what is sent by the loop meanwhile.
        """
        with self._closing:
            if self.closed or self._waiting:
                return False
            try:
                send_record(self._connection, record, ())
            except OSError:  # no room, or no peer: the loop will see
                return False
        return True

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is sent while the block runs leaves at its end, in as few records as possible."""
        self._held = [] if self.packs else None
        try:
            yield
        finally:
            held, self._held = self._held, None
            for record in together(held or ()):
                if not self.closed:
                    self._leave(record, ())

    def _leave(self, record: bytes, descriptors: Sequence[int]) -> None:
        if not self._waiting:
            try:
                send_record(self._connection, record, descriptors)
            except BlockingIOError:
                self._flushed.clear()
                self._loop.add_writer(self._connection.fileno(), self._writable)
            except OSError as error:
                self._end(f"sending failed: {error.strerror}")
                return
            else:
                return
        self._waiting.append((record, [os.dup(descriptor) for descriptor in descriptors]))

    @property
    def pending(self) -> bool:
        """Whether records still wait for the peer."""
        return bool(self._waiting)

    async def flushed(self) -> None:
        """Wait until every record has left this process, or the connection ended."""
        await self._flushed.wait()

    def close(self) -> None:
        """Close without calling ``on_closed``."""
        if self.closed:
            return
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        with self._closing:  # or a thread might write to whatever gets this number next
            self.closed = True
            self._connection.close()
        for _, descriptors in self._waiting:
            close_all(descriptors)
        self._waiting.clear()
        self._flushed.set()

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.close()
            # Later, so that a sender isn't surprised in the middle of what it does.
            self._loop.call_soon(self._on_closed, reason)

    def _writable(self) -> None:
        while self._waiting:
            record, descriptors = self._waiting[0]
            try:
                send_record(self._connection, record, descriptors)
            except BlockingIOError:
                return
            except OSError as error:
                self._end(f"sending failed: {error.strerror}")
                return
            self._waiting.popleft()
            close_all(descriptors)
        self._loop.remove_writer(self._connection.fileno())
        self._flushed.set()

    def stop_reading(self) -> None:
        """Have the loop leave what comes where it is: another thread takes it."""
        if not self.closed:
            self._loop.remove_reader(self._connection.fileno())

    def read_on(self) -> None:
        """Have the loop take what comes again."""
        if not self.closed:
            self._loop.add_reader(self._connection.fileno(), self._readable)

    def fileno(self) -> int:
        """To wait for what comes; -1 once it is closed."""
        return self._connection.fileno()

    def take(self) -> Optional[Received]:
        """One record's frames and descriptors, or why no more come; None: not now.

        From any thread, but from one at a time: see ``stop_reading``.
        """
        with self._closing:
            if self.closed:
                return None
            try:
                return self._inbox.receive(self._connection, frames_in) or "the peer closed"
            except BlockingIOError:
                return None
            except OSError as error:
                return f"receiving failed: {error.strerror}"
            except FrameError as error:
                return f"the peer sent no frame: {error}"

    def deal_with(self, received: Received) -> None:
        """Tell the owner what was taken (in the loop)."""
        if isinstance(received, str):
            self._end(received)
            return
        frames, descriptors = received
        if self.closed:
            close_all(descriptors)
            return
        for frame in frames:
            self._on_frame(frame, descriptors if frame is frames[0] else [])

    def _readable(self) -> None:
        """Take one record: the loop says if there is another, for less than to look would cost."""
        received = self.take()
        if received is not None:
            self.deal_with(received)
