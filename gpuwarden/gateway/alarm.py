# SPDX-License-Identifier: Apache-2.0
"""One timer of the event loop."""

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` at its time, or before: who set it to a later time then sets it again."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    @property
    def when(self) -> float:
        """In the loop's time; infinite where it is not set."""
        return math.inf if self._timer is None else self._timer.when()

    def set(self, when: float | None) -> None:
        """Ring at that time, or never. A timer costs more than to be asked once too often."""
        if when is not None and self.when <= when:
            return
        self.cancel()
        self._timer = None if when is None else self._loop.call_at(when, self._rings)

    def cancel(self) -> None:
        """Never ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
