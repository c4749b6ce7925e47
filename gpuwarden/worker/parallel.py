# SPDX-License-Identifier: Apache-2.0
"""An engine whose requests run side by side: who runs, who is next, who is told to stop.

The gateway sends each request at once, as it does for an engine with slots. What a worker that dies
was killed by can't be told here: each that ran is suspect, and tried again alone.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, Optional

from gpuwarden.worker.engine import Audience, ParallelEngine
from gpuwarden.worker.faults import Failure, failure_of, location
from gpuwarden.worker.gpu import answer_of
from gpuwarden.worker.outputs import Answer
from gpuwarden.worker.settings import Settings
from gpuwarden.worker.slots import CANCELLED, Guests
from gpuwarden.worker.waiting import within

_log = logging.getLogger(__name__)

# A request ends by itself before the gateway takes the whole worker for stuck.
MARGIN_SHARE, MARGIN_LONGEST_SECONDS = 0.1, 1.0


@dataclass
class _Taken:
    serial: int
    run: "asyncio.Task[Answer]"


class Parallel:
    """Has an engine answer requests, at most ``max_batch`` at a time.

    :param on_busy: told when there is something to do, and when there is nothing any more.
    """

    def __init__(
        self,
        engine: ParallelEngine,
        settings: Settings,
        guests: Guests,
        on_busy: Callable[[bool], None],
    ) -> None:
        self._engine = engine
        self._count = settings.max_batch
        self._guests = guests
        self._on_busy = on_busy
        seconds = settings.execution_timeout_seconds
        self._seconds = seconds - min(seconds * MARGIN_SHARE, MARGIN_LONGEST_SECONDS)
        self._taken: Dict[int, _Taken] = {}
        self._limit: Optional[int] = None
        self._is_closing = False
        engine.audience = _Callers(self._taken, guests)

    def __len__(self) -> int:
        return len(self._taken)

    def set_limit(self, limit: Optional[int], thermal_state: str) -> None:
        """The card has grown hotter or cooler; those that run finish in any case.

        :param limit: requests that may run together; None: all.
        """
        self._engine.thermal_state = thermal_state
        if limit != self._limit:
            self._limit = limit
            self._engine.limited(limit)
        self.advance()

    def advance(self) -> None:
        """There may be somebody to take in, or somebody who has gone."""
        for taken in self._taken.values():
            if not self._guests.is_awaited(taken.serial):
                taken.run.cancel()
        while (place := self._free_place()) is not None:
            serial = self._guests.next_guest()
            if serial is None:
                return
            self._begin(place, serial)

    async def close(self) -> None:
        """Give up what still runs, unanswered: its gateway gives it to another."""
        self._is_closing = True
        runs = [taken.run for taken in self._taken.values()]
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def _free_place(self) -> Optional[int]:
        room = self._count if self._limit is None else min(self._count, self._limit)
        if len(self._taken) >= room:
            return None
        return next(place for place in range(self._count) if place not in self._taken)

    def _begin(self, place: int, serial: int) -> None:
        self._on_busy(True)
        for joining in (True, False):  # from now on it runs; there is no prefill that we would see
            self._guests.joins(serial, joining)
        answering = self._answer(place, self._guests.item(serial))
        run = asyncio.get_running_loop().create_task(answering)
        self._taken[place] = _Taken(serial, run)
        run.add_done_callback(partial(self._end, place, serial, time.monotonic()))

    def _end(self, place: int, serial: int, since: float, run: "asyncio.Task[Answer]") -> None:
        """A request is through, has failed, or was cancelled, perhaps before it had begun."""
        del self._taken[place]
        if not self._taken:
            self._on_busy(False)
        if self._is_closing:
            return
        answer = CANCELLED if run.cancelled() else run.result()
        self._guests.answer(serial, answer, time.monotonic() - since)
        self.advance()

    async def _answer(self, place: int, item: Any) -> Answer:
        try:
            result = await within(self._seconds, self._engine.answer(place, item))
        except asyncio.TimeoutError:
            text = f"it was not answered within {self._seconds:g} s (execution_timeout_seconds)"
            return Failure("execution_timeout", text)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an integrator's code
            failure = failure_of(error)
            # What its caller can correct is no news to the operator.
            level = logging.WARNING if failure.kind == "engine_error" else logging.INFO
            _log.log(level, "a request failed in answer(): %s", location(error))
            return failure
        return answer_of(self._engine, result)


class _Callers(Audience):
    """Those whose requests run; heard of and told on the loop."""

    def __init__(self, taken: Dict[int, _Taken], guests: Guests) -> None:
        self._taken = taken
        self._guests = guests

    def hear(self, index: int, text: str) -> None:
        """A piece of the answer to the request at place ``index``."""
        if text:
            self._guests.hear(self._taken[index].serial, text)

    def waits(self, index: int) -> bool:
        """Whether the caller of the request at place ``index`` is still there."""
        return self._guests.is_awaited(self._taken[index].serial)
