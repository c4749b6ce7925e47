"""The one thread that touches the card, and what it does with a batch."""

import asyncio
import logging
import queue
import threading
import time
from typing import Any, Callable, List, Optional, Set, Tuple, TypeVar

from gpuwarden.worker.engine import Audience, Engine, RequestError
from gpuwarden.worker.faults import Failure, failure_of, location
from gpuwarden.worker.outputs import Answer, checked_answer
from gpuwarden.worker.priority import name_this_thread

_log = logging.getLogger(__name__)
THREAD_NAME = "gpu"  # in the kernel, too: the supervisor finds it by this
Result = TypeVar("Result")
Settle = Callable[[Any, Optional[BaseException]], None]
BROKEN_OFF = Failure("engine_error", "the answer broke off: its batch failed")


class GpuThread:
    """Runs functions one after the other on one thread, as CUDA and most models want it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[Optional[Callable[[], None]]] = queue.SimpleQueue()
        # daemon: a call that hangs in the driver must not keep the process from ending
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()
        self.busy_since: Optional[float] = None  # time.monotonic() when predict() was called

    def mark(self) -> None:
        """predict() is about to be called."""
        self.busy_since = time.monotonic()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The function's result; raises what it raises."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def settle(result: Any, error: Optional[BaseException]) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(settle, function, *arguments)
        return await future

    def submit(self, settle: Settle, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function run; ``settle`` gets, in the loop, its result or what it raised."""

        def call() -> None:
            result, caught = None, None
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001 - settle raises it again, in the loop
                caught = error
            self.busy_since = None
            self._loop.call_soon_threadsafe(settle, result, caught)

        self._work.put(call)

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

    def __init__(self, audience: Audience, first: int) -> None:
        self._audience = audience
        self._first = first
        self.told: Set[int] = set()

    def hear(self, index: int, text: str) -> None:
        """A piece of an answer."""
        self.told.add(index)
        self._audience.hear(self._first + index, text)

    def waits(self, index: int) -> bool:
        """Whether an item's caller is still there."""
        return self._audience.waits(self._first + index)


def run_batch(
    engine: Engine,
    items: List[Any],
    mark: Callable[[], None],
    audience: Optional[Audience] = None,
    first: int = 0,
) -> List[Answer]:
    """Predict and postprocess; one answer or failure for each item, in order.

    ``mark`` is called before each call of predict(). If a batch of several fails, each item is
    tried alone: the one at fault fails, with a text that can quote no other request. Whose caller
    has heard a piece of the answer already fails too: it would hear it twice.

    :param audience: who waits for the items; the first of them has the number ``first`` there.
    """
    heard = engine.audience = _Heard(audience or Audience(), first)
    try:
        results = _predict(engine, items, mark)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an integrator's code
        if len(items) == 1:
            _log.warning("a request failed in predict(): %s", location(error))
            return [failure_of(error)]
        _log.warning("a batch of %d failed, each is tried alone: %s", len(items), location(error))
        answers: List[Answer] = []
        for index, item in enumerate(items):
            if index in heard.told:
                answers.append(BROKEN_OFF)
            else:
                answers += run_batch(engine, [item], mark, audience, first + index)
        return answers
    finally:
        engine.audience = Audience()
    return [answer_of(engine, result) for result in results]


def _predict(engine: Engine, items: List[Any], mark: Callable[[], None]) -> List[Any]:
    mark()
    results = list(engine.predict(items))
    if len(results) != len(items):
        raise RequestError(f"predict() gave {len(results)} results for {len(items)} requests")
    return results


def answer_of(engine: Engine, result: Any) -> Answer:
    """The answer that postprocess() makes of a result, or the failure."""
    if isinstance(result, RequestError):
        return failure_of(result)
    try:
        answer = engine.postprocess(result)
    except Exception as error:  # noqa: BLE001 - an integrator's code fails this request only
        _log.warning("a request failed in postprocess(): %s", location(error))
        return failure_of(error)
    return checked_answer(answer)


def read_memory(engine: Engine) -> Optional[Tuple[int, int]]:
    """What the engine says of its VRAM; None where it can't say."""
    try:
        return engine.memory()
    except Exception as error:  # noqa: BLE001 - a figure less is no reason to end
        _log.warning("memory() failed: %s", location(error))
        return None
