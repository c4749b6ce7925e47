# SPDX-License-Identifier: Apache-2.0
"""An engine whose requests join and leave between its steps: who is in which slot, who is next.

The gateway sends each request at once, as long as there is a free slot or a place among the few
that are prepared ahead; who joins which step, and who waits on a critical card, is decided here
alone. Before a request is taken in, and after, the gateway is told: a worker that dies meanwhile
was killed by that request, or by one of its group.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Dict, List, Mapping, Optional, Protocol, Set, Tuple

from gpuwarden.worker.brokencard import breaks_card
from gpuwarden.worker.engine import Audience, Engine, ParallelEngine, SlotEngine
from gpuwarden.worker.faults import Failure, failure_of, location, raise_error_of
from gpuwarden.worker.gpu import BROKEN_OFF, answer_of
from gpuwarden.worker.outputs import Answer
from gpuwarden.worker.retries import Retries
from gpuwarden.worker.shortage import TOO_LARGE, drop_caches, is_out_of_memory

_log = logging.getLogger(__name__)

CRITICAL = "critical"  # a card's thermal state
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

    def was_told(self, serial: int) -> bool:
        """Whether a piece of its answer has gone to its caller."""

    def answer(self, serial: int, answer: Answer, seconds: float) -> None:
        """It has left its slot."""


class Places(Protocol):
    """Where requests run that don't come in batches."""

    def set_limit(self, limit: Optional[int], thermal_state: str) -> None:
        """So many may run together from now on; None: all that there is room for."""

    def advance(self) -> None:
        """There may be somebody to take in, or somebody who has gone."""


@dataclass
class _Taken:
    serial: int
    since: float
    parked: bool = False


class Slots:
    """Steps an engine for as long as anybody is in it.

    :param on_gpu: runs a function on the GPU thread.
    :param on_busy: told when the first one joins, and when the last one has left.
    :ivar limit: slots that may be taken; None: all. A lower one lets those that run finish.
    :ivar on_shortage: told of each time that memory runs out; True: with one request alone.
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
        self._parks = True  # until the engine says that it can't
        self._retries = Retries()
        self.limit: Optional[int] = None
        self.on_shortage: Callable[[bool], None] = lambda alone: None
        engine.audience = _Guests(self._taken, guests)

    def __len__(self) -> int:
        return len(self._taken)

    def set_limit(self, limit: Optional[int], thermal_state: str) -> None:
        """The card has grown hotter or cooler."""
        self.limit = limit
        self._engine.thermal_state = thermal_state
        self.advance()

    def advance(self) -> None:
        """There may be somebody to take in."""
        if self._run is None:
            self._run = asyncio.get_running_loop().create_task(self._live())
            self._run.add_done_callback(raise_error_of)

    async def _live(self) -> None:
        try:
            while True:
                await self._let_go()
                await self._park()
                joined = await self._take_in()
                if self._taken:
                    await self._step()
                elif not joined and not self._retries:
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
        while (serial := self._retries.withdraw(self._guests.is_awaited)) is not None:
            self._answer(_Taken(serial, time.monotonic()), CANCELLED)

    async def _park(self) -> None:
        """Have those wait who are too many for a critical card, and go on when they are not."""
        before = {slot for slot, taken in self._taken.items() if taken.parked}
        critical = self._engine.thermal_state == CRITICAL and self._parks
        if not (before or critical):
            return
        wanted = parked(list(self._taken), before, self.limit, critical=critical)
        for slot in sorted(before ^ wanted):
            self._parks = await self._on_gpu(park, self._engine, slot, slot in wanted)
            if not self._parks:
                return
            self._taken[slot].parked = slot in wanted

    async def _take_in(self) -> bool:
        """A group at most between two steps: those that run wait for it meanwhile."""
        joiners: List[Tuple[int, Any]] = []
        beside = len(self._taken)
        while len(joiners) < self._engine.group:
            slot = self._free_slot()
            serial = None if slot is None else self._next()
            if slot is None or serial is None:
                break
            item = self._guests.item(serial)
            items = [one for _, one in joiners] + [item]
            if joiners and not may_join(self._engine, items, beside):
                self._retries.put_back(serial)
                break
            self._on_busy(True)
            self._taken[slot] = _Taken(serial, time.monotonic())
            self._guests.joins(serial, True)
            joiners.append((slot, item))
        if not joiners:
            return False
        failures = await self._on_gpu(join, self._engine, joiners)
        for slot, _ in joiners:
            self._guests.joins(self._taken[slot].serial, False)
        self._settle(failures, len(self._taken) - 1)
        return True

    def _next(self) -> Optional[int]:
        if self._retries:
            return self._retries.next(len(self._taken))
        return self._guests.next_guest()

    async def _step(self) -> None:
        others = len(self._taken) - 1
        self._settle(await self._on_gpu(step, self._engine, list(self._taken)), others)

    def _settle(self, answers: Mapping[int, Answer], others: int) -> None:
        """Answer requests, but for those that run again beside fewer: memory ran out."""
        if TOO_LARGE in answers.values():
            self.on_shortage(others == 0)
        for slot, answer in answers.items():
            serial = self._taken[slot].serial
            if answer is TOO_LARGE and self._guests.was_told(serial):
                self._end(slot, BROKEN_OFF)
            elif answer is TOO_LARGE and self._retries.take(serial, others):
                del self._taken[slot]
            else:
                self._end(slot, answer)

    def _free_slot(self) -> Optional[int]:
        room = self._count if self.limit is None else min(self._count, self.limit)
        if len(self._taken) >= room:
            return None
        return next(slot for slot in range(self._count) if slot not in self._taken)

    def _end(self, slot: int, answer: Answer) -> None:
        self._answer(self._taken.pop(slot), answer)

    def _answer(self, taken: _Taken, answer: Answer) -> None:
        self._retries.forget(taken.serial)
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

    def hear_all(self, pieces: Dict[int, str]) -> None:
        """Pieces of several answers: the loop is woken once for all of them."""
        heard = [(self._taken[slot].serial, text) for slot, text in pieces.items() if text]
        if heard:
            self._loop.call_soon_threadsafe(self._hear, heard)

    def _hear(self, heard: List[Tuple[int, str]]) -> None:
        for serial, text in heard:
            self._guests.hear(serial, text)

    def waits(self, index: int) -> bool:
        """Whether the caller of whoever is in slot ``index`` is still there."""
        return self._guests.is_awaited(self._taken[index].serial)


def parked(order: List[int], before: Set[int], limit: Optional[int], *, critical: bool) -> Set[int]:
    """Which of the taken slots wait.

    :param order: the slots, whoever came first first.
    :param before: those that wait already: they go on, the oldest first, as there is room.
    :param limit: of slots that run; None: all.
    :param critical: whether those wait that are over the limit, though they run.
    """
    room = len(order) if limit is None else limit
    if critical:
        return set(order[room:])
    running = len(order) - len(before)
    waiting = [slot for slot in order if slot in before]
    return set(waiting[max(0, room - running) :])


def may_join(engine: SlotEngine, items: List[Any], beside: int) -> bool:
    """Whether an engine takes these together (on the loop's thread); where it fails, one by one."""
    try:
        return bool(engine.may_join(items, beside))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an integrator's code
        _log.error("may_join() failed, requests join one by one: %s", location(error))
        return False


def join(engine: SlotEngine, joiners: List[Tuple[int, Any]]) -> Dict[int, Failure]:
    """Take requests in (on the GPU thread); why not, for those that fail: each fails alone."""
    if len(joiners) > 1:
        is_short = False
        try:
            engine.join_all(joiners)
        except (Exception, SystemExit) as error:  # an integrator's code
            if breaks_card(error):
                raise
            text = "%d requests failed in join_all(), each is tried alone: %s"
            _log.warning(text, len(joiners), location(error))
            is_short = is_out_of_memory(error)
        else:
            return {}
        if is_short:  # not before the error is gone: its traceback holds tensors
            drop_caches(engine)
    failures = {slot: _join_alone(engine, slot, item) for slot, item in joiners}
    return {slot: failure for slot, failure in failures.items() if failure is not None}


def _join_alone(engine: SlotEngine, slot: int, item: Any) -> Optional[Failure]:
    failure = None
    try:
        engine.join(slot, item)
    except (Exception, SystemExit) as error:  # an integrator's code
        if breaks_card(error):
            raise
        _log.warning("a request failed in join(): %s", location(error))
        failure = TOO_LARGE if is_out_of_memory(error) else failure_of(error)
    if failure is not None:
        leave(engine, slot)
    if failure is TOO_LARGE:  # not before the error is gone: its traceback holds tensors
        drop_caches(engine)
    return failure


def park(engine: SlotEngine, slot: int, wanted: bool) -> bool:
    """Have a slot wait or go on (on the GPU thread); whether the engine can do that."""
    try:
        return bool(engine.park(slot, wanted))
    except (Exception, SystemExit) as error:  # an integrator's code
        if breaks_card(error):
            raise
        _log.error("park() failed, no slot is parked any more: %s", location(error))
        return False


def step(engine: SlotEngine, taken: List[int]) -> Dict[int, Answer]:
    """One step (on the GPU thread); the answers of those that have come to their end.

    A step that fails leaves every slot in doubt: all of them are freed.
    """
    failure = None
    try:
        results = {slot: result for slot, result in engine.step().items() if slot in taken}
    except (Exception, SystemExit) as error:  # an integrator's code
        if breaks_card(error):
            raise
        _log.warning("a step of %d requests failed: %s", len(taken), location(error))
        failure = failure_of(error) if len(taken) == 1 else SHARED
        failure = TOO_LARGE if is_out_of_memory(error) else failure
    if failure is not None:
        for slot in taken:
            leave(engine, slot)
        if failure is TOO_LARGE:
            drop_caches(engine)
        return dict.fromkeys(taken, failure)
    for slot in results:
        leave(engine, slot)
    answers = {slot: answer_of(engine, result) for slot, result in results.items()}
    if TOO_LARGE in answers.values():
        drop_caches(engine)
    return answers


SHARED = Failure("engine_error", "a step that it shared with others failed")


def leave(engine: SlotEngine, slot: int) -> None:
    """Free a slot (on the GPU thread)."""
    try:
        engine.leave(slot)
    except (Exception, SystemExit) as error:  # an integrator's code
        if breaks_card(error):
            raise
        _log.error("leave() failed, its slot may hold memory: %s", location(error))


def manner_of(engine: Engine) -> Dict[str, Any]:
    """How an engine wants its requests, as HELLO and STATE say it."""
    budget = {"batch_pixels": engine.batch_pixels, "batch_tokens": engine.batch_tokens}
    told: Dict[str, Any] = {name: value for name, value in budget.items() if value is not None}
    if engine.batch_mixed:
        told["batch_mixed"] = True
    is_slots = isinstance(engine, (SlotEngine, ParallelEngine))
    return {"scheduling": "slots" if is_slots else "batch", **told}
