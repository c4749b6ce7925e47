# SPDX-License-Identifier: Apache-2.0
"""Requests with slots that ran out of memory, and beside how many others each tries again. Pure."""

from collections import deque
from typing import Callable, Deque, Optional, Set, Tuple

ANY = 1 << 30  # others


class Retries:
    """They go before all others, in their order: nobody joins meanwhile who takes their room."""

    def __init__(self) -> None:
        self._waiting: Deque[Tuple[int, int]] = deque()
        self._failed_alone: Set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, serial: int, others: int) -> bool:
        """Whether a request is tried again that failed beside so many others.

        With half of them; after it failed alone, once more alone, for caches were dropped since.
        """
        if others == 0:
            if serial in self._failed_alone:
                return False
            self._failed_alone.add(serial)
        self._waiting.append((serial, others // 2))
        return True

    def put_back(self, serial: int) -> None:
        """It is the next one, beside however many: there was no room for it in a group."""
        self._waiting.appendleft((serial, ANY))

    def next(self, others: int) -> Optional[int]:
        """Who may join beside so many others."""
        if not self._waiting or self._waiting[0][1] < others:
            return None
        return self._waiting.popleft()[0]

    def withdraw(self, is_awaited: Callable[[int], bool]) -> Optional[int]:
        """The first whose caller has gone: it waits no longer."""
        for entry in self._waiting:
            if not is_awaited(entry[0]):
                self._waiting.remove(entry)
                return entry[0]
        return None

    def forget(self, serial: int) -> None:
        """It has been answered."""
        self._failed_alone.discard(serial)
