# SPDX-License-Identifier: Apache-2.0
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
from gpuwarden.worker.compact import compact_json, parse_json
from gpuwarden.worker.nesting import TOO_DEEP, nests_too_deep


@dataclass(slots=True)
class Answer:
    """What a caller gets from a worker.

    :ivar said: its JSON object, or that as it came.
    :ivar output: what is larger or other than JSON; destroyed with the last holder of its job.
    """

    said: dict[str, Any] | bytes
    model: str
    worker: int
    terms: Terms = WHOLE
    output: Output | None = None

    @property
    def answer(self) -> dict[str, Any]:
        """Its JSON object. Raises ApiError where the worker sent none."""
        return self.read()

    def read(self) -> dict[str, Any]:
        """The same, for once and for all."""
        said = self.said
        if not isinstance(said, bytes):
            return said
        if nests_too_deep(said):
            raise ApiError("engine_error", f"the worker's answer {TOO_DEEP}")
        try:
            answer: dict[str, Any] = parse_json(said.decode("ascii"))
        except (ValueError, RecursionError):
            raise ApiError("engine_error", "the worker's answer is no JSON") from None
        self.said = answer
        return answer

    @property
    def data(self) -> bytes:
        """The same as JSON."""
        said = self.said
        return said if isinstance(said, bytes) else compact_json(said).encode("ascii")


def nobody(job: "Job") -> None:
    """Nobody has to be told."""


@dataclass(eq=False, slots=True)
class Job:
    """An accepted request with its body and whoever waits for it.

    :ivar body: None before it has come, and again once the request is left.
    :ivar pieces: of the answer, for a caller who streams; they end with the outcome.
    :ivar terms: how that caller wants the answer; known, as is the model, with the first piece.
    :ivar shared: whether it outlives its first caller.
    :ivar held: buffers of others that it needs until it ends.
    :ivar on_end: called at once with the outcome, by who has no task to wait for it.
    :ivar holders: who still needs the answer: whoever admitted it, each caller who waits, and its
        Idempotency-Key.
    :ivar answer: what a worker has answered; else ``error`` says why there is none.
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
    on_end: Callable[["Job"], None] = nobody
    answer: Answer | None = None
    error: ApiError | None = None
    _waiting: asyncio.Future[Answer] | None = None  # only where a task waits: it is dear

    @property
    def outcome(self) -> asyncio.Future[Answer]:
        """The answer, to be waited for. Who gives up waiting wants none any more."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
            self._tell()
        return self._waiting

    @property
    def is_over(self) -> bool:
        """Whether there is an outcome, or nobody wants one any more."""
        if self.answer is not None or self.error is not None:
            return True
        return self._waiting is not None and self._waiting.done()

    def succeed(self, answer: Answer) -> None:
        """A worker has answered."""
        self.answer = answer
        self._settle()

    def fail(self, error: ApiError) -> None:
        """There will be no answer."""
        self.error = error
        self._settle()

    def _settle(self) -> None:
        if self._waiting is not None:
            self._tell()
        self.pieces.close()
        self.on_end(self)

    def _tell(self) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():
            return
        if self.error is not None:
            waiting.set_exception(self.error)
            waiting.exception()  # seen: its caller may have left before
        elif self.answer is not None:
            waiting.set_result(self.answer)

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
        if not self.holders and self.answer is not None and self.answer.output is not None:
            self.answer.output.destroy()
