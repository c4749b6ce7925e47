# SPDX-License-Identifier: Apache-2.0
"""Where the time of a request goes in the worker, from its CPU process to its first piece of text.

A CPU process notes what it did on what it hands over; the worker adds up, by stage.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from gpuwarden.worker.engines.transformers.prompts import Prepared

PREPARED = "made ready"
HANDED = "handed over, waits for a step"
JOINED = "looked at, taken in, first piece"
# Of what makes ready; the rest is tokens, terms, and bringing pictures together.
READ, WINDOW, RESIZED = "of it: the file", "of it: its window", "of it: resized"
Counted = dict[str, list[float]]  # by stage: how many, and their seconds


@dataclass(frozen=True)
class Noted(Prepared):
    """A request with the times that went into it.

    :ivar seconds: of making it ready, by part.
    :ivar ready_at: when it was handed over (time.time()).
    """

    seconds: dict[str, float] = field(default_factory=dict)
    ready_at: float = 0.0


def noted(item: Prepared, seconds: dict[str, float]) -> Noted:
    """The same with its times."""
    values = {entry.name: getattr(item, entry.name) for entry in fields(Prepared)}
    return Noted(**values, seconds=seconds, ready_at=time.time())


class Stages:
    """Adds up, on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: Counted = {}
        self._joined_at: dict[int, float] = {}

    def joins(self, slot: int, item: Any) -> None:
        """A request is given to the engine."""
        now = time.time()
        with self._lock:
            self._joined_at[slot] = now
            for name, seconds in item.seconds.items():
                self._add(name, seconds)
            self._add(HANDED, now - item.ready_at)

    def told(self, slots: Iterable[int]) -> None:
        """Pieces of their answers are told."""
        if not self._joined_at:
            return
        now = time.time()
        with self._lock:
            for slot in slots:
                began = self._joined_at.pop(slot, None)
                if began is not None:
                    self._add(JOINED, now - began)

    def counted(self) -> Counted:
        """So far."""
        with self._lock:
            return {name: list(value) for name, value in self._counted.items()}

    def _add(self, name: str, seconds: float) -> None:
        entry = self._counted.setdefault(name, [0, 0.0])
        entry[0] += 1
        entry[1] += seconds


def stages_between(pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
    """Milliseconds of each stage, on average over all workers. Pure.

    :param pairs: of each worker its figures before and after.
    """
    total: Counted = {}
    for before, after in pairs:
        early = before.get("stages", {})
        for name, (count, seconds) in after.get("stages", {}).items():
            was = early.get(name, (0, 0.0))
            entry = total.setdefault(name, [0, 0.0])
            entry[0] += count - was[0]
            entry[1] += seconds - was[1]
    return {name: round(1000 * took / count, 1) for name, (count, took) in total.items() if count}
