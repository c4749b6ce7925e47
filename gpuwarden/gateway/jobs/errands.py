# SPDX-License-Identifier: Apache-2.0
"""Work that is seen through though whoever asked for it leaves in the middle.

A thread that writes a file can't be cancelled, and a deletion that is half done is none: so
cancelling those who wait must not cancel what they wait for.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from gpuwarden.gateway.http import where
from gpuwarden.gateway.jobs.values import JobStoreError

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")


async def to_the_end(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Wait for ``work`` until it is done; being cancelled meanwhile comes after it."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):  # once more, and raised below
                await asyncio.wait([task])
        _tell_failure(task)
        raise


class Errands:
    """Tasks of their own, for those who may leave before the end: callers who hang up."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        """Have it done; ``close`` waits for it."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def run(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Have it done, and wait for it; who is cancelled meanwhile leaves it to itself."""
        task = self.begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell_failure)
            raise

    async def close(self) -> None:
        """Wait for all that was begun."""
        while self._under_way:
            await asyncio.wait(self._under_way)


def _tell_failure(task: asyncio.Task[Any]) -> None:
    """Nobody else hears of it."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        why = error if isinstance(error, JobStoreError) else where(error)
        log.error("what nobody waits for any more has failed: %s", why)
