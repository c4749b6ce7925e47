# SPDX-License-Identifier: Apache-2.0
"""What follows from changes, done once for all those that come together."""

import asyncio
from collections.abc import Callable

LATER_SECONDS = 0.01  # small requests, one after the other, change something every 0.1 ms


class Notes:
    """Calls ``note`` after a change: in the next turn of the loop, or a moment later.

    A turn of its own costs as much as a tenth of a small request: it is for what somebody waits
    for.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._note = note
        self._handle: asyncio.Handle | None = None
        self._is_soon = False

    def change(self, *, somebody_waits: bool) -> None:
        """Something has changed."""
        if self._handle is None:
            if not somebody_waits:
                self._handle = self._loop.call_later(LATER_SECONDS, self._call)
                return
        elif self._is_soon or not somebody_waits:
            return
        else:
            self._handle.cancel()
        self._handle, self._is_soon = self._loop.call_soon(self._call), True

    def close(self) -> None:
        """Note nothing any more."""
        self._note = lambda: None

    def _call(self) -> None:
        self._handle, self._is_soon = None, False
        self._note()
