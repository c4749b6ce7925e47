# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to become true, no longer than a deadline; and how long it took."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

DEADLINE_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.02
TRIES = 5


def wait_until(look: Callable[[], Found | None], deadline_seconds: float | None = None) -> Found:
    """What ``look`` gives as soon as it gives something true; fails at the deadline."""
    end = time.monotonic() + (deadline_seconds or DEADLINE_SECONDS)
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(LOOK_EVERY_SECONDS)


async def seconds_at_best(once: Callable[[], Awaitable[object]], promised_seconds: float) -> float:
    """How long ``once`` took, at the best of five tries; no more are made than the promise needs.

    What else runs on the machine can only make it longer.
    """
    best = float("inf")
    for _ in range(TRIES):
        began = time.monotonic()
        await once()
        best = min(best, time.monotonic() - began)
        if best < promised_seconds:
            break
    return best
