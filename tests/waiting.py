"""Waiting for something to become true, no longer than a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

DEADLINE_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.02


def wait_until(look: Callable[[], Found | None], deadline_seconds: float | None = None) -> Found:
    """What ``look`` gives as soon as it gives something true; fails at the deadline."""
    end = time.monotonic() + (deadline_seconds or DEADLINE_SECONDS)
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(LOOK_EVERY_SECONDS)
