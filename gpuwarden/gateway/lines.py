# SPDX-License-Identifier: Apache-2.0
"""Who waits for a worker, and whose turn it is. Pure.

People come before the background (durable jobs), each in batches of their own. While people never
stop coming, every 16th batch is the background's, so that neither waits for ever. Suspects, who
were in a worker that died, stand apart: each is to have a worker for itself. Those of the
background wait for people like all of it: each of their tries may cost a worker's restart. People
who can't have their answer in time any more come after those who can: else, when workers have
become fewer or slower, each would be tried when it is nearly over, and nobody be answered. Among
them the youngest come first, who may still be in time if they are quicker than others were.

A batch begins with the oldest. Those behind it who are of another kind are passed over; since each
is the oldest at last, nobody waits for ever.
"""

import math
from typing import NamedTuple

from gpuwarden.gateway.lazyheap import LazyHeap
from gpuwarden.gateway.work import UNBOUNDED, Request, Weight, is_waiting

PEOPLE_BATCHES = 15  # in a row while the background waits: it keeps a sixteenth of the cards
PRIORITY_STRIDE = 1 << 40  # more requests than are ever accepted: priority before age
PASSED_OVER = 16  # at most, for each batch: four batches of others


class Bounds(NamedTuple):
    """What a batch may be.

    :param size: requests at most.
    :param mixed: they may be of different kinds.
    """

    size: int
    budget: Weight = UNBOUNDED
    mixed: bool = False

    def permits(self, one: Request, other: Request) -> bool:
        """Whether two may be in one batch, whatever they weigh."""
        return self.mixed or (one.kind is not None and one.kind == other.kind)


class Lines:
    """The waiting requests; who is not waiting any more is passed over."""

    def __init__(self) -> None:
        self._people = LazyHeap[Request](is_waiting)
        self._late = LazyHeap[Request](is_waiting)
        self._background = LazyHeap[Request](is_waiting)
        self._suspects = LazyHeap[Request](is_waiting)  # people's
        self._background_suspects = LazyHeap[Request](is_waiting)
        self._others = self._late, self._background, self._suspects, self._background_suspects
        self._people_batches = 0  # given out while the background waited

    def join(self, request: Request) -> None:
        """A request waits, in its old place if it had one."""
        if request.background:
            line = self._background_suspects if request.suspect else self._background
            line.push(request.number - request.priority * PRIORITY_STRIDE, request)
        elif request.suspect:
            self._suspects.push(request.number, request)
        else:
            self._people.push(request.number, request)

    @property
    def has_people(self) -> bool:
        """Whether somebody waits, suspects aside."""
        return bool(self._people) or bool(len(self._late) and self._late)

    @property
    def has_background(self) -> bool:
        """Whether the background waits, suspects aside."""
        return bool(self._background)

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not (
            self.has_people or self._background or self._suspects or self._background_suspects
        )

    @property
    def oldest_person(self) -> float:
        """The number of the first of people's requests, of whichever line; infinite without any."""
        firsts = (line.first() for line in (self._people, self._late, self._suspects))
        return min((first[1].number for first in firsts if first is not None), default=math.inf)

    def may_exceed(self, size: int) -> bool:
        """Whether there may be more people than that, so that it matters who comes first."""
        return self.people > size

    @property
    def people(self) -> int:
        """How many people wait, suspects aside, or a few more: who is gone may be counted yet."""
        return len(self._people) + len(self._late)

    def set_late_apart(self, answered_at: float) -> None:
        """Have people wait until nobody else does who would be answered after their deadline.

        Whoever was set apart and would be in time after all has the old place again.
        """
        while len(self._late) and (late := self._late.first()):
            if late[1].deadline < answered_at:
                break
            self._people.push(-late[0], self._late.pop())
        while (first := self._people.first()) is not None and first[1].deadline < answered_at:
            self._late.push(-first[0], self._people.pop())

    def first_suspect(self) -> Request | None:
        """Whose turn it is among the suspects, left in its place."""
        first = self._suspects.first()
        if first is None and self._background_suspects and self._may_have_background():
            first = self._background_suspects.first()
        return first and first[1]

    def take_suspect(self) -> Request:
        """The one whose turn it is. Raises IndexError where there is none."""
        if self._suspects:
            return self._suspects.pop()
        self._people_batches = 0
        return self._background_suspects.pop()

    def take_lone(self) -> Request | None:
        """Who waits alone, and is a person and no suspect; None where anybody else waits."""
        if len(self._people) != 1 or any(self._others) or not self._people:
            return None
        self._people_batches = 0
        return self._people.pop()

    def incomplete(self, bounds: Bounds, *, with_background: bool) -> list[Request]:
        """The next batch, left in its place, if it is people's and one more of them would fit."""
        if not self._people or (with_background and self._is_backgrounds_turn()):
            return []
        batch = self._gather(self._people, bounds)
        has_room = len(batch) < bounds.size and not self.has_people
        for request in batch:
            self.join(request)
        return batch if has_room else []

    def take(self, bounds: Bounds, *, with_background: bool = True) -> list[Request]:
        """The next batch, of one class."""
        background = with_background and self._is_backgrounds_turn()
        people = self._people or self._late
        batch = self._gather(self._background if background else people, bounds)
        passed_over = not background and bool(self._background or self._background_suspects)
        self._people_batches = self._people_batches + 1 if passed_over else 0
        return batch

    def _gather(self, line: LazyHeap[Request], bounds: Bounds) -> list[Request]:
        """The first of a line, and those like it; who is too heavy ends the batch."""
        batch: list[Request] = []
        passed_over: list[tuple[float, Request]] = []
        pixels = tokens = 0
        while len(batch) < bounds.size and (first := line.first()) is not None:
            if batch and not bounds.permits(batch[0], first[1]):
                passed_over.append(first)
                line.pop()
                if len(passed_over) > PASSED_OVER:
                    break
                continue
            pixels += first[1].weight.pixels
            tokens += first[1].weight.tokens
            if batch and (pixels > bounds.budget.pixels or tokens > bounds.budget.tokens):
                break
            batch.append(line.pop())
        for order, request in passed_over:
            line.push(order, request)
        return batch

    def _is_backgrounds_turn(self) -> bool:
        return self.has_background and self._may_have_background()

    def _may_have_background(self) -> bool:
        return not self.has_people or self._people_batches >= PEOPLE_BATCHES
