# SPDX-License-Identifier: Apache-2.0
"""What runs out of time: callers' deadlines, executions, and a worker's slowness to begin. Pure."""

import math
from dataclasses import dataclass, replace

from gpuwarden.gateway.lazyheap import LazyHeap
from gpuwarden.gateway.work import Batch, Ending, Phase, Request, Seat

SLOT_SECONDS = 5.0  # until a cancelled slot is free, at most: a step of a worker that turns
PREPARED_AND_RUNNING = 2  # executions' time that a request may wait for with nobody else before it


@dataclass(slots=True)
class Execution:
    """A batch, or what is left of it, that runs in a worker since ``started``: for its limit.

    :ivar started: None: a worker with slots has not taken it into one yet.
    :ivar is_overdue: it has passed its limit in a slot, which is to be freed.
    """

    seat: Seat
    batch: Batch
    started: float | None
    is_overdue: bool = False

    @property
    def is_current(self) -> bool:
        """Whether it goes on, as far as the worker is connected."""
        seat, batch = self.seat, self.batch
        here = batch.number in seat.batches and not seat.stalled
        return here and batch.started == self.started


class Timers:
    """All of them, the next one first; what has ended meanwhile is passed over.

    :param seats: the connected workers; looked at, never changed.
    """

    def __init__(self, seats: dict[int, Seat]) -> None:
        self._seats = seats
        self._heap = LazyHeap[Request | Execution](self._is_running_out)

    def wait(self, request: Request) -> None:
        """A caller waits until its deadline."""
        self._heap.push(request.deadline, request)

    def start(self, seat: Seat, batch: Batch, now: float, seconds: float) -> None:
        """A batch, or what is left of it, runs from now on."""
        batch.started = now
        self._heap.push(now + seconds, Execution(seat, batch, now))

    def hand_over(self, seat: Seat, batch: Batch, now: float, seconds: float) -> None:
        """A worker with slots has it and says when it gets one: within a bounded time.

        While the request is prepared those that run end, or pass their own limit; then come those
        that were there before it, each of which may take its time, in the worst case in one slot.
        """
        before = sum(one.started is None for one in seat.batches.values() if one is not batch)
        limit = now + (PREPARED_AND_RUNNING + before) * seconds
        self._heap.push(limit, Execution(seat, batch, None))

    def wait_for_slot(self, late: Execution, now: float) -> bool:
        """Whether a worker is given time, once, to free the slot of what has passed its limit."""
        if late.is_overdue or not late.seat.slots or late.started is None:
            return False
        overdue = replace(late, is_overdue=True)
        self._heap.push(now + SLOT_SECONDS, overdue)
        return True

    def next(self, known: float) -> float | None:
        """When the first runs out; looked up only if that may be before ``known``."""
        first = self._heap.first() if self._heap.least_key() < known else None
        return first and first[0]

    def pop(self, now: float) -> Request | Execution | None:
        """The first that has run out, once; None where nothing has."""
        first = self.next(math.inf)
        return None if first is None or first > now else self._heap.pop()

    def _is_running_out(self, subject: Request | Execution) -> bool:
        if isinstance(subject, Request):
            return subject.phase is not Phase.ENDED
        return subject.seat.key in self._seats and subject.is_current


def ending_of(late: Request, seats: dict[int, Seat]) -> Ending:
    """How a request ends whose deadline passes.

    :param seats: the connected workers.
    """
    if late.phase is Phase.RUNNING:
        return Ending.DEADLINE
    is_served = late.model is None or any(seat.model == late.model for seat in seats.values())
    return Ending.QUEUE_TIMEOUT if is_served else Ending.MODEL_GONE
