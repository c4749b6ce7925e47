# SPDX-License-Identifier: Apache-2.0
"""What the guard does beside its loop: each kind once at a time, its failures told once."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

# Some work is named after a process: each failure of such is a name of its own.
MOST_TOLD = 32


class Jobs:
    """Running pieces of work, by what they do in words.

    :param ended: called whenever one has ended.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._running: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, str] = {}

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Do ``work`` beside the loop, unless the same is already being done.

        :param what: as in "could not ...", which is how its failure is told.
        """
        running = self._running.get(what)
        if running is not None:
            work.close()
            return running
        task = self._running[what] = asyncio.create_task(work, name=what)
        task.add_done_callback(self._end)
        return task

    @property
    def remembered(self) -> int:
        """How many failures it knows to have told."""
        return len(self._told)

    def is_running(self, what: str) -> bool:
        """Whether that is being done now."""
        return what in self._running

    def _end(self, task: asyncio.Task[None]) -> None:
        what = task.get_name()
        self._running.pop(what, None)
        self._ended()
        if task.cancelled():
            return
        error = task.exception()
        text = (str(error) or type(error).__name__) if error else ""
        if text and self._told.get(what) != text:
            log.warning("could not %s: %s", what, text)
        self._told.pop(what, None)
        if text:
            self._told[what] = text
        if len(self._told) > MOST_TOLD:
            self._told.pop(next(iter(self._told)))
