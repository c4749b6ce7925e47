# SPDX-License-Identifier: Apache-2.0
"""Tasks whose end others carry out, in a done-callback: one cancelled before its first step has
no ``finally`` that would run."""

import asyncio
from typing import Any


def failure_of(task: asyncio.Task[Any]) -> BaseException | None:
    """What an ended task failed on, a cancellation among it; None where it did not."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()
