# SPDX-License-Identifier: Apache-2.0
"""Waiting with a limit that loses no cancellation.

Before Python 3.12 asyncio.wait_for() returns the result, and nobody hears of the cancellation,
when both come in the same turn of the loop: who was told to stop goes on.
"""

import asyncio
from typing import Awaitable, TypeVar

Result = TypeVar("Result")


async def within(seconds: float, awaited: Awaitable[Result]) -> Result:
    """What ``awaited`` gives. Raises asyncio.TimeoutError; then, or cancelled, it has ended."""
    task = asyncio.ensure_future(awaited)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()  # no effect where it is done
        await asyncio.gather(task, return_exceptions=True)
    if not done:
        raise asyncio.TimeoutError
    return task.result()
