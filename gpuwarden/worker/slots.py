"""An engine whose requests join and leave between its steps: who is in which slot, who is next.

The gateway sends each request at once, as long as there is a free slot or a place among the few
that are prepared ahead; who joins which step is decided here alone. Before a request is taken in,
and after, the gateway is told: a worker that dies meanwhile was killed by that request.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Dict, List, Optional, Protocol

from gpuwarden.worker.engine import Audience, Engine, ParallelEngine, SlotEngine
from gpuwarden.worker.faults import Failure, failure_of, location, raise_error_of
from gpuwarden.worker.gpu import answer_of
from gpuwarden.worker.outputs import Answer

_log = logging.getLogger(__name__)

CANCELLED = Failure("cancelled", "its caller has gone")

OnGpu = Callable[..., Awaitable[Any]]


class Guests(Protocol):
    """The requests that are prepared, and their callers."""

    def next_guest(self) -> Optional[int]:
        """The next prepared request that may run, by its serial; it runs from now on."""

    def item(self, serial: int) -> Any:
        """What preprocess() made of it."""

    def joins(self, serial: int, joining: bool) -> None:
        """It is taken in from now on, or has been."""

    def is_awaited(self, serial: int) -> bool:
        """Whether anybody waits for its answer."""

    def hear(self, serial: int, text: str) -> None:
        """A piece of its answer."""

    def answer(self, serial: int, answer: Answer, seconds: float) -> None:
        """It has left its slot."""


class Places(Protocol):
    """Where requests run that don't come in batches.

    :ivar limit: how many may run together; None: all that there is room for.
    """

    limit: Optional[int]

    def advance(self) -> None:
        """There may be somebody to take in, or somebody who has gone."""


@dataclass
class _Taken:
    serial: int
    since: float


class Slots:
    """Steps an engine for as long as anybody is in it.

    :param on_gpu: runs a function on the GPU thread.
    :param on_busy: told when the first one joins, and when the last one has left.
    :ivar limit: slots that may be taken; None: all. A lower one lets those that run finish.
    """

    def __init__(
        self,
        engine: SlotEngine,
        count: int,
        guests: Guests,
        on_gpu: OnGpu,
        on_busy: Callable[[bool], None],
    ) -> None:
        self._engine = engine
        self._count = count
        self._guests = guests
        self._on_gpu = on_gpu
        self._on_busy = on_busy
        self._taken: Dict[int, _Taken] = {}
        self._run: Optional[asyncio.Task[None]] = None
        self.limit: Optional[int] = None
        engine.audience = _Guests(self._taken, guests)

    def __len__(self) -> int:
        return len(self._taken)

    def advance(self) -> None:
        """There may be somebody to take in."""
        if self._run is None:
            self._run = asyncio.get_running_loop().create_task(self._live())
            self._run.add_done_callback(raise_error_of)

    async def _live(self) -> None:
        try:
            while True:
                await self._let_go()
                joined = await self._take_one_in()
                if self._taken:
                    await self._step()
                elif not joined:
                    return
        finally:
            self._run = None
            self._on_busy(False)

    async def _let_go(self) -> None:
        """Free the slots of those whose callers have gone."""
        for slot, taken in list(self._taken.items()):
            if not self._guests.is_awaited(taken.serial):
                await self._on_gpu(leave, self._engine, slot)
                self._end(slot, CANCELLED)

    async def _take_one_in(self) -> bool:
        """One at most between two steps: those that run wait for it meanwhile."""
        slot = self._free_slot()
        serial = None if slot is None else self._guests.next_guest()
        if slot is None or serial is None:
            return False
        self._on_busy(True)
        self._taken[slot] = _Taken(serial, time.monotonic())
        self._guests.joins(serial, True)
        failure = await self._on_gpu(join, self._engine, slot, self._guests.item(serial))
        self._guests.joins(serial, False)
        if failure is not None:
            self._end(slot, failure)
        return True

    async def _step(self) -> None:
        answers = await self._on_gpu(step, self._engine, list(self._taken))
        for slot, answer in answers.items():
            self._end(slot, answer)

    def _free_slot(self) -> Optional[int]:
        room = self._count if self.limit is None else min(self._count, self.limit)
        if len(self._taken) >= room:
            return None
        return next(slot for slot in range(self._count) if slot not in self._taken)

    def _end(self, slot: int, answer: Answer) -> None:
        taken = self._taken.pop(slot)
        self._guests.answer(taken.serial, answer, time.monotonic() - taken.since)


class _Guests(Audience):
    """Those who are in the slots: heard of on the GPU thread, told on the loop's."""

    def __init__(self, taken: Dict[int, _Taken], guests: Guests) -> None:
        self._loop = asyncio.get_running_loop()
        self._taken = taken
        self._guests = guests

    def hear(self, index: int, text: str) -> None:
        """A piece of the answer of whoever is in slot ``index``."""
        if text:
            self._loop.call_soon_threadsafe(self._guests.hear, self._taken[index].serial, text)

    def waits(self, index: int) -> bool:
        """Whether the caller of whoever is in slot ``index`` is still there."""
        return self._guests.is_awaited(self._taken[index].serial)


def join(engine: SlotEngine, slot: int, item: Any) -> Optional[Failure]:
    """Take a request in (on the GPU thread); why not, where that fails: it fails alone."""
    try:
        engine.join(slot, item)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an integrator's code
        _log.warning("a request failed in join(): %s", location(error))
        leave(engine, slot)
        return failure_of(error)
    return None


def step(engine: SlotEngine, taken: List[int]) -> Dict[int, Answer]:
    """One step (on the GPU thread); the answers of those that have come to their end.

    A step that fails leaves every slot in doubt: all of them are freed.
    """
    try:
        results = {slot: result for slot, result in engine.step().items() if slot in taken}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an integrator's code
        _log.warning("a step of %d requests failed: %s", len(taken), location(error))
        for slot in taken:
            leave(engine, slot)
        failure = failure_of(error) if len(taken) == 1 else SHARED
        return dict.fromkeys(taken, failure)
    for slot in results:
        leave(engine, slot)
    return {slot: answer_of(engine, result) for slot, result in results.items()}


SHARED = Failure("engine_error", "a step that it shared with others failed")


def leave(engine: SlotEngine, slot: int) -> None:
    """Free a slot (on the GPU thread)."""
    try:
        engine.leave(slot)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an integrator's code
        _log.error("leave() failed, its slot may hold memory: %s", location(error))


def manner_of(engine: Engine) -> Dict[str, Any]:
    """How an engine wants its requests, as HELLO and STATE say it."""
    budget = {"batch_pixels": engine.batch_pixels, "batch_tokens": engine.batch_tokens}
    told = {name: value for name, value in budget.items() if value is not None}
    return {
        "scheduling": "slots" if isinstance(engine, (SlotEngine, ParallelEngine)) else "batch",
        **told,
    }
