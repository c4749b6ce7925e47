"""An accepted request on its way, and its answer."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gpuwarden.gateway.body import Body, Room
from gpuwarden.gateway.buffers import Buffer
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.messages import WHOLE, Terms
from gpuwarden.gateway.outputs import Output
from gpuwarden.gateway.pieces import Pieces
from gpuwarden.gateway.work import Request


@dataclass(slots=True)
class Answer:
    """What a caller gets from a worker.

    :ivar output: what is larger or other than JSON; destroyed with the last holder of its job.
    """

    answer: dict[str, Any]
    model: str
    worker: int
    terms: Terms = WHOLE
    output: Output | None = None


def nothing() -> None:
    """Nobody has to be told."""


@dataclass(eq=False)
class Job:
    """An accepted request with its body and whoever waits for it.

    :ivar pieces: of the answer, for a caller who streams; they end with the outcome.
    :ivar terms: how that caller wants the answer; known, as is the model, with the first piece.
    :ivar shared: whether it outlives its first caller.
    :ivar held: buffers of others that it needs until it ends.
    :ivar on_end: called at once with the outcome, by who has no task to wait for it.
    :ivar holders: who still needs the answer: whoever admitted it, each caller who waits, and its
        Idempotency-Key.
    """

    request: Request
    accepted_at: float
    room: Room
    body: Body | None = None
    queued_at: float | None = None
    pieces: Pieces = field(default_factory=Pieces)
    terms: Terms = WHOLE
    model: str = ""
    shared: bool = False
    held: list[Buffer] = field(default_factory=list)
    holders: int = 1
    on_end: Callable[[], None] = nothing
    outcome: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def succeed(self, answer: Answer) -> None:
        """A worker has answered."""
        self.outcome.set_result(answer)
        self.pieces.close()
        self.on_end()

    def fail(self, error: ApiError) -> None:
        """There will be no answer."""
        self.outcome.set_exception(error)
        self.pieces.close()
        self.on_end()

    def join(self) -> None:
        """One more needs the answer."""
        self.holders += 1

    @contextmanager
    def held_by_caller(self) -> Iterator["Job"]:
        """One more needs the answer while the block runs."""
        self.join()
        try:
            yield self
        finally:
            self.part()

    def part(self) -> None:
        """One less needs the answer; with the last one a large result goes."""
        self.holders -= 1
        done = self.outcome.done() and not self.outcome.cancelled()
        if self.holders or not done or self.outcome.exception() is not None:
            return
        output = self.outcome.result().output
        if output is not None:
            output.destroy()
