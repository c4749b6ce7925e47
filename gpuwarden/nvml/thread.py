# SPDX-License-Identifier: Apache-2.0
"""One thread for all calls to the driver, so that a call that never returns blocks no one else.

No executor: at exit Python waits for an executor's threads, and a thread in the driver's hands
may never come back. A daemon thread is left behind.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class DriverThread:
    """Runs calls one after the other in its own thread."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run ``function`` in the thread; raises what it raises. May never return."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((function, future))
        return await future

    def _work(self) -> None:
        while True:
            function, future = self._calls.get()
            try:
                answer = function()
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                self._hand_over(_fail, future, error)
            else:
                self._hand_over(_succeed, future, answer)

    def _hand_over(self, settle: Callable[..., None], future: asyncio.Future[Any], x: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(settle, future, x)


def _succeed(future: asyncio.Future[Any], answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
