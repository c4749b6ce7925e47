"""An accepted request on its way, and its answer."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from gpuwarden.gateway.body import Body, Room
from gpuwarden.gateway.buffers import Buffer
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.messages import WHOLE, Terms
from gpuwarden.gateway.pieces import Pieces
from gpuwarden.gateway.work import Request


@dataclass(frozen=True)
class Answer:
    """What a caller gets from a worker."""

    answer: dict[str, Any]
    model: str
    worker: int
    terms: Terms = WHOLE


@dataclass(eq=False)
class Job:
    """An accepted request with its body and whoever waits for it.

    :ivar pieces: of the answer, for a caller who streams; they end with the outcome.
    :ivar terms: how that caller wants the answer; known, as is the model, with the first piece.
    :ivar shared: whether it outlives its first caller.
    :ivar held: buffers of others that it needs until it ends.
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
    outcome: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def succeed(self, answer: Answer) -> None:
        """A worker has answered."""
        self.outcome.set_result(answer)
        self.pieces.close()

    def fail(self, error: ApiError) -> None:
        """There will be no answer."""
        self.outcome.set_exception(error)
        self.pieces.close()
