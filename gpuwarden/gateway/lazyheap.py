# SPDX-License-Identifier: Apache-2.0
"""A heap whose items may die inside it: the dead are skipped, and swept out before they pile up."""

import heapq
import math
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

SLACK = 64  # dead items that are never worth a sweep


class LazyHeap(Generic[Item]):
    """Smallest key first.

    :param is_live: whether an item still counts; once false it must stay so until popped.
    """

    def __init__(self, is_live: Callable[[Item], bool]) -> None:
        self._is_live = is_live
        self._entries: list[tuple[float, int, Item]] = []
        self._pushed = 0
        self._sweep_at = SLACK

    def __bool__(self) -> bool:
        """Whether anything live is in it."""
        entries, is_live = self._entries, self._is_live
        while entries:
            if is_live(entries[0][2]):
                return True
            heapq.heappop(entries)
        return False

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, key: float, item: Item) -> None:
        """Add an item; equal keys keep their order."""
        if len(self._entries) >= self._sweep_at:
            self._entries = [entry for entry in self._entries if self._is_live(entry[2])]
            heapq.heapify(self._entries)
            self._sweep_at = 2 * len(self._entries) + SLACK
        self._pushed += 1
        heapq.heappush(self._entries, (key, self._pushed, item))

    def first(self) -> tuple[float, Item] | None:
        """The smallest key and its item, left in place; None when nothing live is in it."""
        entries, is_live = self._entries, self._is_live
        while entries:
            key, _, item = entries[0]
            if is_live(item):
                return key, item
            heapq.heappop(entries)
        return None

    def least_key(self) -> float:
        """No live key is smaller; costs nothing, since a dead item may have it."""
        return self._entries[0][0] if self._entries else math.inf

    def pop(self) -> Item:
        """Take the smallest. Raises IndexError when nothing live is in it."""
        entries, is_live = self._entries, self._is_live
        while entries:
            item = heapq.heappop(entries)[2]
            if is_live(item):
                return item
        raise IndexError("pop from an empty heap")
