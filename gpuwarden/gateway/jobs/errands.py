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


def _tell_failure(task: asyncio.Task[Any]) -> None:
    """Nobody else hears of it."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        why = error if isinstance(error, JobStoreError) else where(error)
        log.error("what nobody waits for any more has failed: %s", why)
