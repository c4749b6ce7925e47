# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.dataplane.served.queue_design PORT``: the articles' own design.

A front with a bounded ``multiprocessing.Queue`` of requests, worker processes that look into it
every 10 ms, a queue of results that a thread of the front empties. As it was published, but for
aiohttp as its front.
"""

import asyncio
import itertools
import multiprocessing
import queue
import sys
import threading
import time
from typing import Any

from aiohttp import web

from tests.bench.dataplane.served.work import WORKERS, answer

POLL_SECONDS = 0.01
QUEUE_LIMIT = 100


def work_through(requests: Any, results: Any) -> None:
    """A worker: looks for a request, rests when there is none."""
    while True:
        try:
            number, body = requests.get_nowait()
        except queue.Empty:
            time.sleep(POLL_SECONDS)
            continue
        results.put((number, answer(body)))


class Front:
    """Takes requests, waits for their results."""

    def __init__(self) -> None:
        self.requests: Any = multiprocessing.Queue(QUEUE_LIMIT)
        self.results: Any = multiprocessing.Queue()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()

    async def start(self, app: web.Application) -> None:
        """Begin to hand on results."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._hand_on, args=(loop,), daemon=True).start()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Have a worker answer it."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self.requests.put((number, await request.read()))
        return web.json_response(await self._waiting[number])

    def _hand_on(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            number, result = self.results.get()
            loop.call_soon_threadsafe(self._settle, number, result)

    def _settle(self, number: int, result: Any) -> None:
        future = self._waiting.pop(number)
        if not future.done():
            future.set_result(result)


if __name__ == "__main__":
    front = Front()
    for _ in range(WORKERS):
        multiprocessing.Process(
            target=work_through, args=(front.requests, front.results), daemon=True
        ).start()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", front.handle)
    app.on_startup.append(front.start)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
