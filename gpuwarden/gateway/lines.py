"""Who waits for a worker, and whose turn it is. Pure.

People come before the background (durable jobs), each in batches of their own. While people never
stop coming, every 16th batch is the background's, so that neither waits for ever. Suspects, who
were in a worker that died, stand apart: each is to have a worker for itself.
"""

from gpuwarden.gateway.lazyheap import LazyHeap
from gpuwarden.gateway.work import UNBOUNDED, Request, Weight, is_waiting

PEOPLE_BATCHES = 15  # in a row while the background waits: it keeps a sixteenth of the cards
PRIORITY_STRIDE = 1 << 40  # more requests than are ever accepted: priority before age


class Lines:
    """The waiting requests; who is not waiting any more is passed over."""

    def __init__(self) -> None:
        self._people = LazyHeap[Request](is_waiting)
        self._background = LazyHeap[Request](is_waiting)
        self._suspects = LazyHeap[Request](is_waiting)
        self._people_batches = 0  # given out while the background waited

    def join(self, request: Request) -> None:
        """A request waits, in its old place if it had one."""
        if request.suspect:
            self._suspects.push(request.number, request)
        elif request.background:
            order = request.number - request.priority * PRIORITY_STRIDE
            self._background.push(order, request)
        else:
            self._people.push(request.number, request)

    @property
    def has_people(self) -> bool:
        """Whether somebody waits, suspects aside."""
        return bool(self._people)

    @property
    def has_background(self) -> bool:
        """Whether the background waits, suspects aside."""
        return bool(self._background)

    @property
    def has_suspect(self) -> bool:
        """Whether a suspect waits."""
        return bool(self._suspects)

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not (self._people or self._background or self._suspects)

    def take_suspect(self) -> Request:
        """The oldest suspect. Raises IndexError where there is none."""
        return self._suspects.pop()

    def incomplete(self, size: int, budget: Weight, *, with_background: bool) -> list[Request]:
        """The next batch, left in its place, if it is people's and one more of them would fit."""
        if not self.has_people or (with_background and self._is_backgrounds_turn()):
            return []
        batch = self._gather(self._people, size, budget)
        has_room = len(batch) < size and not self.has_people
        for request in batch:
            self.join(request)
        return batch if has_room else []

    def take(
        self, size: int, budget: Weight = UNBOUNDED, *, with_background: bool = True
    ) -> list[Request]:
        """The next batch, of one class, up to ``size`` requests within a budget."""
        background = with_background and self._is_backgrounds_turn()
        line = self._background if background else self._people
        batch = self._gather(line, size, budget)
        passed_over = line is self._people and self.has_background
        self._people_batches = self._people_batches + 1 if passed_over else 0
        return batch

    def _gather(self, line: LazyHeap[Request], size: int, budget: Weight) -> list[Request]:
        """The first of a line; nobody overtakes one who doesn't fit, or it might wait for ever."""
        batch: list[Request] = []
        pixels = tokens = 0
        while len(batch) < size and (first := line.first()) is not None:
            pixels += first[1].weight.pixels
            tokens += first[1].weight.tokens
            if batch and (pixels > budget.pixels or tokens > budget.tokens):
                break
            batch.append(line.pop())
        return batch

    def _is_backgrounds_turn(self) -> bool:
        if not self.has_background:
            return False
        return not self.has_people or self._people_batches >= PEOPLE_BATCHES
