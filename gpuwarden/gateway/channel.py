# SPDX-License-Identifier: Apache-2.0
"""One connected SOCK_SEQPACKET socket in the event loop: records in, records and descriptors out.

asyncio has no transport for sequential packets, so this speaks to the socket itself.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable

from gpuwarden.worker.channel import close_all, send_record
from gpuwarden.worker.frames import RECORD_LIMIT_BYTES

log = logging.getLogger(__name__)

WHOLE_LENGTH = int(socket.MSG_TRUNC)  # is what recv() returns, also of what is cut short


class RecordChannel:
    """Calls ``on_record`` for each record and ``on_closed`` once, when the peer is gone.

    :param pid: the peer's process: its death closes the channel even while children of it keep the
        socket open. 0 where it can't be watched.
    """

    def __init__(
        self,
        connection: socket.socket,
        pid: int,
        on_record: Callable[[bytes], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._on_record = on_record
        self._on_closed = on_closed
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._buffer = bytearray(RECORD_LIMIT_BYTES)
        self._process = open_process(pid)
        self._is_broken = False
        self._is_blocked = False
        self.is_open = True
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)
        if self._process is not None:
            self._loop.add_reader(self._process, self._process_ended)

    def send(self, record: bytes, descriptors: list[int] | None = None) -> None:
        """Send a record, in order, now or when the peer has room for it."""
        if not self.is_open or self._is_broken:
            return
        if not self._outbox and self._try(record, descriptors or []):
            return
        if not self._is_broken:
            # By then the descriptors' numbers may stand for other files, another patient's.
            kept = [os.dup(descriptor) for descriptor in descriptors or []]
            self._outbox.append((record, kept))
            self._loop.add_writer(self._socket, self._write)

    def close(self) -> None:
        """Hang up; ``on_closed`` follows at once."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        if self._process is not None:
            self._loop.remove_reader(self._process)
            os.close(self._process)
        self._drop_all()
        self._buffer = bytearray()  # not left to the collector: it counts objects, not their size
        self._on_closed()

    def read_pending(self) -> None:
        """Take what has arrived already, the peer's end included."""
        while self._read():
            pass

    def _read(self) -> bool:
        """Take one record; whether there may be more: the loop says so, too, and for less."""
        if not self.is_open:
            return False
        try:
            size = self._socket.recv_into(self._buffer, 0, WHOLE_LENGTH)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            size = 0
        if size > RECORD_LIMIT_BYTES:
            log.error("a record over %d bytes: hanging up", RECORD_LIMIT_BYTES)
        if size == 0 or size > RECORD_LIMIT_BYTES:
            self.close()
            return False
        self._on_record(bytes(memoryview(self._buffer)[:size]))
        return True

    def _write(self) -> None:
        while self._outbox and self.is_open:
            record, descriptors = self._outbox[0]
            if not self._try(record, descriptors):
                return
            self._outbox.popleft()
            close_all(descriptors)
        if self.is_open:
            self._loop.remove_writer(self._socket)

    def _try(self, record: bytes, descriptors: list[int]) -> bool:
        """Send a record now; False where the peer has no room, or is gone."""
        try:
            send_record(self._socket, record, descriptors)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            # Not now: whoever sends is in the middle of something else.
            self._is_broken = True
            self._drop_all()
            self._loop.remove_writer(self._socket)
            self._loop.call_soon(self.close)
            return False
        return True

    def _drop_all(self) -> None:
        for _, descriptors in self._outbox:
            close_all(descriptors)
        self._outbox.clear()

    def _process_ended(self) -> None:
        self.read_pending()  # answers that were sent before it died count
        self.close()


def open_process(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where it can't be had."""
    if pid <= 0:
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
