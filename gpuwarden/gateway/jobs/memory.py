# SPDX-License-Identifier: Apache-2.0
"""How much of the buffer pool jobs may use: people's requests always find the rest."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gpuwarden.gateway.buffers import BufferPool, class_bytes
from gpuwarden.gateway.errors import ApiError
from gpuwarden.worker.frames import INLINE_LIMIT_BYTES

WORK_SHARE = 2  # a half of the pool for jobs that workers have or get next
UPLOAD_SHARE = 4  # a quarter for jobs that are being received


class JobMemory:
    """Two shares of the pool; each has room for one body at least, however large.

    Who waits for room to work has it in the order of arrival: a large body is passed by none.
    """

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._working = 0
        self._uploading = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()  # with their sizes

    @asynccontextmanager
    async def for_work(self, length: int) -> AsyncIterator[None]:
        """Wait for room for a body that a worker is to have."""
        size = held_bytes(length)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():  # as the task was that gave up waiting
                self._working -= size
            self._let_in()

    @contextmanager
    def for_upload(self, length: int) -> Iterator[None]:
        """Room for a body that is being received. Raises ApiError 429 where there is none."""
        size = held_bytes(length)
        if self._uploading and self._uploading + size > self._pool.limit_bytes // UPLOAD_SHARE:
            raise ApiError(
                "queue_full", "as many jobs are being received as can be", retry_after_seconds=1
            )
        self._uploading += size
        try:
            yield
        finally:
            self._uploading -= size

    def _let_in(self) -> None:
        """Give room to those who wait, as far as it goes."""
        limit = self._pool.limit_bytes // WORK_SHARE
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if self._working and self._working + size > limit:
                    return
                self._working += size
                turn.set_result(None)
            self._waiting.popleft()


def held_bytes(length: int) -> int:
    """What a body takes of the pool."""
    return class_bytes(length) if length > INLINE_LIMIT_BYTES else 0
