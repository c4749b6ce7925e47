# SPDX-License-Identifier: Apache-2.0
"""The end of a request that has killed three workers, and of its twins that wait.

It is set aside first and its caller told then: whoever tries again at once is refused already.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.buffers import BufferPool
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.job import Job
from gpuwarden.gateway.setaside import SetAside
from gpuwarden.systemd.events import Event, tell

TEXT = (
    "a request was given up: each of the last three workers that had it alone died; the same is"
    " not tried again for ten minutes"
)


class GivingUp:
    """Ends requests with their error.

    :param jobs: all accepted requests.
    """

    def __init__(
        self, set_aside: SetAside, pool: BufferPool, jobs: Callable[[], Iterable[Job]]
    ) -> None:
        self._set_aside = set_aside
        self._pool = pool
        self._jobs = jobs
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, job: Job, error: ApiError) -> None:
        """End this one, and those that are the same."""
        if not job.request.background:  # of a durable job its feeder tells
            tell(Event.REQUEST_SET_ASIDE, TEXT, logging.ERROR)
        body, holding = job.body, ExitStack()
        if body is not None:  # from now on: its caller may leave before the task begins
            holding.enter_context(self._holding(body))
        task = asyncio.get_running_loop().create_task(self._end(job, body, error))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: holding.close())

    async def _end(self, job: Job, body: Body | None, error: ApiError) -> None:
        try:
            if body is not None:
                await self._set_aside.put(body)
        finally:
            end(job, error)
        for other in self._jobs():
            if other.body is None or other.is_over:
                continue
            with self._holding(other.body):
                is_twin = await self._set_aside.holds(other.body)
            if is_twin:
                end(other, error)

    @contextmanager
    def _holding(self, body: Body) -> Iterator[None]:
        """Keep a body's buffers as they are, although its caller may leave."""
        buffers = list(body.buffers())
        for buffer in buffers:
            self._pool.hold(buffer)
        try:
            yield
        finally:
            for buffer in buffers:
                self._pool.release(buffer)


def end(job: Job, error: ApiError) -> None:
    """Answer a caller with an error, unless there is an answer already."""
    if not job.is_over:
        job.fail(ApiError(error.type, error.message))
