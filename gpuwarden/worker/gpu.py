# SPDX-License-Identifier: Apache-2.0
"""The one thread that touches the card, and what it does with a batch."""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from functools import partial
from typing import Any, Callable, Deque, Dict, List, Optional, Set, TypeVar

from gpuwarden.worker.brokencard import breaks_card
from gpuwarden.worker.engine import Audience, Engine, RequestError
from gpuwarden.worker.faults import Failure, failure_of, location
from gpuwarden.worker.outputs import Answer, checked_answer
from gpuwarden.worker.priority import name_this_thread
from gpuwarden.worker.shortage import TOO_LARGE, drop_caches, is_out_of_memory

_log = logging.getLogger(__name__)
THREAD_NAME = "gpu"  # in the kernel, too: the supervisor finds it by this
Result = TypeVar("Result")
Raised = Optional[BaseException]
Settle = Callable[[Any, Raised], None]
BROKEN_OFF = Failure("engine_error", "the answer broke off: its batch failed")
OnShortage = Callable[[bool], None]
_NOBODY = Audience()


class GpuThread:
    """Runs functions one after the other on one thread, as CUDA and most models want it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[Optional[Callable[[], None]]] = queue.SimpleQueue()
        self._for_loop: Deque[Callable[[], None]] = deque()
        # daemon: a call that hangs in the driver must not keep the process from ending
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()
        self._unsettled = 0
        self.before_submit: Callable[[], None] = lambda: None  # has what waits there come to an end
        self.busy_since: Optional[float] = None  # time.monotonic() when predict() was called

    def mark(self) -> None:
        """predict() is about to be called."""
        self.busy_since = time.monotonic()

    def unmark(self) -> None:
        """It has ended."""
        self.busy_since = None

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The function's result; raises what it raises."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def settle(result: Any, error: Raised) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(settle, function, *arguments)
        return await future

    def submit(
        self,
        settle: Settle,
        function: Callable[..., Any],
        *arguments: Any,
        may_wait: Callable[[], bool] = lambda: False,
        here: bool = False,
    ) -> None:
        """Have a function run; ``settle`` gets, in the loop, its result or what it raised.

        :param may_wait: asked then whether that has time until the loop calls ``catch_up``.
        :param here: it may run before this returns, in the loop, while the thread has nothing.
        """

        def call() -> None:
            result, caught = None, None
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001 - settle raises it again, in the loop
                caught = error
            self.unmark()
            self._for_loop.append(partial(self._settle, settle, result, caught))
            if caught is not None or not may_wait():
                self._loop.call_soon_threadsafe(self.catch_up)

        self.before_submit()
        is_free, self._unsettled = not self._unsettled, self._unsettled + 1
        if here and is_free:
            call()
        else:
            self._work.put(call)

    def pass_on(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the loop call a function, before it settles what runs now (on this thread)."""
        self._for_loop.append(partial(function, *arguments))
        self._loop.call_soon_threadsafe(self.catch_up)

    def catch_up(self) -> None:
        """Settle what has been done so far, in the order in which it was (in the loop)."""
        while self._for_loop:
            self._for_loop.popleft()()

    def _settle(self, settle: Settle, result: Any, caught: Raised) -> None:
        self._unsettled -= 1
        settle(result, caught)

    def end(self, seconds: float) -> bool:
        """Let the thread end; whether it did within that time."""
        self._work.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        name_this_thread(THREAD_NAME)
        while True:
            call = self._work.get()
            if call is None:
                return
            call()
            del call  # it holds the batch: patients' images


class _Heard(Audience):
    """Passes on what a part of a batch says, and remembers who was told anything."""

    def __init__(self, audience: Audience, numbers: List[int]) -> None:
        self._audience = audience
        self._numbers = numbers
        self.told: Set[int] = set()

    def hear(self, index: int, text: str) -> None:
        """A piece of an answer."""
        self.told.add(index)
        self._audience.hear(self._numbers[index], text)

    def waits(self, index: int) -> bool:
        """Whether an item's caller is still there."""
        return self._audience.waits(self._numbers[index])


def run_batch(
    engine: Engine,
    items: List[Any],
    mark: Callable[[], None],
    audience: Optional[Audience] = None,
    on_shortage: OnShortage = lambda alone: None,
) -> List[Answer]:
    """Predict and postprocess; one answer or failure for each item, in order.

    ``mark`` is called before each call of predict(). If a batch of several fails, each item is
    tried alone: the one at fault fails, with a text that can quote no other request. One that runs
    out of memory is tried again by halves, and at last each alone. Whose caller has heard a piece
    of the answer already fails too: it would hear it twice.

    :param audience: who waits for the items.
    :param on_shortage: told of each time that memory runs out; True: with one item alone.
    """
    batch = _Batch(engine, items, mark, audience or _NOBODY, on_shortage)
    batch.run(list(range(len(items))))
    return [batch.answers[number] for number in range(len(items))]


class _Batch:
    """A batch and the answers to its items, by their number in it."""

    def __init__(
        self,
        engine: Engine,
        items: List[Any],
        mark: Callable[[], None],
        audience: Audience,
        on_shortage: OnShortage,
    ) -> None:
        self._engine = engine
        self._items = items
        self._mark = mark
        self._audience = audience
        self._on_shortage = on_shortage
        self.answers: Dict[int, Answer] = {}

    def run(self, numbers: List[int], *, is_last_try: bool = False) -> None:
        """Answer these items, in parts where they fail together."""
        heard = self._engine.audience = _Heard(self._audience, numbers)
        is_whole = len(numbers) == len(self._items)
        items = list(self._items) if is_whole else [self._items[n] for n in numbers]
        failure = None
        try:
            results = _predict(self._engine, items, self._mark)
        except (Exception, SystemExit) as error:  # an integrator's code
            if breaks_card(error):
                raise
            _log.warning("a batch of %d failed in predict(): %s", len(numbers), location(error))
            failure = failure_of(error)
            is_short = is_out_of_memory(error)
        finally:
            self._engine.audience = _NOBODY
        if failure is None:
            for number, result in zip(numbers, results):
                self.answers[number] = answer_of(self._engine, result)
        elif is_short:
            # Not before the error is gone: its traceback holds what the batch had in memory.
            self._after_shortage(numbers, heard.told, is_last_try)
        else:
            self._after_failure(numbers, heard.told, failure)

    def _after_failure(self, numbers: List[int], told: Set[int], failure: Failure) -> None:
        if len(numbers) == 1:
            self.answers[numbers[0]] = failure
            return
        for number in self._untold(numbers, told):
            self.run([number])

    def _after_shortage(self, numbers: List[int], told: Set[int], is_last_try: bool) -> None:
        is_alone = len(numbers) == 1
        self._on_shortage(is_alone)
        drop_caches(self._engine)
        if is_last_try:
            self.answers[numbers[0]] = TOO_LARGE
            return
        left = self._untold(numbers, told)
        middle = (len(left) + 1) // 2
        for half in (left[:middle], left[middle:]):
            if half:
                self.run(half, is_last_try=is_alone)

    def _untold(self, numbers: List[int], told: Set[int]) -> List[int]:
        """Those that can be tried again; the answers of the others break off."""
        for index in told:
            self.answers[numbers[index]] = BROKEN_OFF
        return [number for index, number in enumerate(numbers) if index not in told]


def _predict(engine: Engine, items: List[Any], mark: Callable[[], None]) -> List[Any]:
    mark()
    results = list(engine.predict(items))
    if len(results) != len(items):
        raise RequestError(f"predict() gave {len(results)} results for {len(items)} requests")
    return results


def answer_of(engine: Engine, result: Any) -> Answer:
    """The answer that postprocess() makes of a result, or the failure."""
    if isinstance(result, Exception):
        return TOO_LARGE if is_out_of_memory(result) else failure_of(result)
    try:
        answer = engine.postprocess(result)
    except Exception as error:  # an integrator's code fails this request only
        if breaks_card(error):
            raise
        _log.warning("a request failed in postprocess(): %s", location(error))
        return failure_of(error)
    return checked_answer(answer)
