# SPDX-License-Identifier: Apache-2.0
"""Guests of an engine with slots, as the worker's queue has them: for tests without a gateway."""

from collections import deque
from typing import Any


class WaitingGuests:
    """Guests that wait, by serial; what each is answered.

    :param items: what each asks, in their order.
    :ivar gone: who isn't waited for any more.
    """

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.waiting = deque(range(len(items)))
        self.answers: dict[int, Any] = {}
        self.gone: set[int] = set()

    def next_guest(self) -> int | None:
        return self.waiting.popleft() if self.waiting else None

    def item(self, serial: int) -> Any:
        return self.items[serial]

    def joins(self, serial: int, joining: bool) -> None:
        pass

    def is_awaited(self, serial: int) -> bool:
        return serial not in self.gone

    def hear(self, serial: int, text: str) -> None:
        pass

    def was_told(self, serial: int) -> bool:
        return False

    def answer(self, serial: int, answer: Any, seconds: float) -> None:
        self.answers[serial] = answer
