# SPDX-License-Identifier: Apache-2.0
"""medgemma-metrics: starts with the first scrape, reads published states, ends when none comes."""

import asyncio
import logging
import time
from collections.abc import Callable

from gpuwarden.exposition.text import CONTENT_TYPE, Exposition
from gpuwarden.metrics.http import Server
from gpuwarden.metrics.node import samples
from gpuwarden.metrics.sources import Places, read
from gpuwarden.systemd.activation import take_sockets
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.lifetime import until_terminated
from gpuwarden.systemd.notify import Notifier

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0  # longer than anybody's scrape interval; systemd goes on listening
LOOK_SECONDS = 5.0  # also how often the watchdog is fed
PAGE_SECONDS = 1.0  # states are published once a second: who asks more often gets the same page


class Page:
    """The page, made at most once a second, however many ask."""

    def __init__(self, places: Places, clock: Callable[[], float] = time.monotonic) -> None:
        self._exposition = Exposition(lambda: samples(read(places)))
        self._clock = clock
        self._made_at = float("-inf")
        self._text = b""

    def __call__(self) -> bytes:
        """The metrics as Prometheus reads them."""
        now = self._clock()
        if now - self._made_at >= PAGE_SECONDS:
            self._text, self._made_at = self._exposition.text(), now
        return self._text


class Service:
    """Serves until SIGTERM, or until nobody has asked for a while.

    :param idle_seconds: how long nobody has to have asked.
    """

    def __init__(self, places: Places, idle_seconds: float) -> None:
        self._page = Page(places)
        self._server: Server | None = None
        self._idle_seconds = idle_seconds
        self._notifier = Notifier()

    async def run(self) -> None:
        """Serve what systemd has handed over. Raises ValueError: nothing."""
        listeners = take_sockets().get("metrics", [])
        if len(listeners) != 1:
            raise ValueError("no socket named metrics: systemctl start medgemma-metrics.socket")
        self._server = server = Server(self._page, CONTENT_TYPE)
        await server.start(listeners[0])
        self._notifier.ready()
        while not server.is_idle_for(self._idle_seconds):
            self._notifier.watchdog()
            await asyncio.sleep(min(LOOK_SECONDS, self._idle_seconds))
        self._notifier.stopping()
        await self.stop()

    async def stop(self) -> None:
        """Answer who is connected; who connects from now on is answered by the next life."""
        if self._server is not None:
            await self._server.close()


def main(argv: list[str], places: Places | None = None) -> int:
    """Answer scrapes."""
    set_up_logging("info")
    service = Service(places or Places(), IDLE_SECONDS)
    try:
        asyncio.run(until_terminated(service.run(), service.stop))
    except ValueError as error:
        log.error("%s", error)
        return 1
    return 0
