# SPDX-License-Identifier: Apache-2.0
"""Whether the worker is well: systemd's watchdog is fed only while it is."""

import asyncio
import time
from typing import Callable, Optional

from gpuwarden.worker.notify import Notifier

PERIOD_SECONDS = 1.0  # between looks where systemd asks for no watchdog


class Pulse:
    """Looks at the GPU thread at half the watchdog's period, from the loop that serves requests.

    So neither a loop that hangs nor a batch that never ends goes on feeding the watchdog.
    ``busy_since`` gives the time.monotonic() of the running predict() call, or None.
    """

    def __init__(
        self,
        notifier: Notifier,
        watchdog_seconds: Optional[float],
        execution_timeout_seconds: float,
        busy_since: Callable[[], Optional[float]],
        on_stuck: Callable[[bool], None],
    ) -> None:
        self._notifier = notifier
        self._period_seconds = watchdog_seconds / 2 if watchdog_seconds else PERIOD_SECONDS
        self._limit_seconds = execution_timeout_seconds
        self._busy_since = busy_since
        self._on_stuck = on_stuck
        self._stuck = False

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(self._period_seconds)

    def look(self) -> None:
        """Feed the watchdog, or tell once that a batch is past its time, and once of its end."""
        since = self._busy_since()
        stuck = since is not None and time.monotonic() - since > self._limit_seconds
        if stuck != self._stuck:
            self._stuck = stuck
            self._on_stuck(stuck)
        if not stuck:
            self._notifier.watchdog()
