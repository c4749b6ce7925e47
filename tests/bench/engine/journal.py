# SPDX-License-Identifier: Apache-2.0
"""What a worker's threads did, and when: a file that grows twice a second, for the benchmark.

Each line is JSON: ``[began (time.time()), seconds, kind, amount]``. Kinds: ``step``, ``join``
(amount: pictures), ``told`` (pieces of text), ``gc`` (generation), ``caches``.
"""

import gc
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITE_SECONDS = 0.5

Event = tuple[float, float, str, int]


class Journal:
    """Takes notes on any thread; writes them on one of its own."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._new: deque[Event] = deque()
        self._collecting = 0.0
        gc.callbacks.append(self._collected)
        threading.Thread(target=self._write, name="journal", daemon=True).start()

    def note(self, began: float, kind: str, amount: int) -> None:
        """Something that ends now."""
        self._new.append((began, time.time() - began, kind, amount))

    @contextmanager
    def during(self, kind: str, amount: int = 0) -> Iterator[None]:
        """Something that takes its time."""
        began = time.time()
        try:
            yield
        finally:
            self.note(began, kind, amount)

    def _collected(self, phase: str, told: dict[str, Any]) -> None:
        if phase == "start":
            self._collecting = time.time()
        else:
            self.note(self._collecting, "gc", int(told["generation"]))

    def _write(self) -> None:
        with self._file.open("a", encoding="ascii") as file:
            while True:
                time.sleep(WRITE_SECONDS)
                while self._new:
                    file.write(json.dumps(self._new.popleft()) + "\n")
                file.flush()


def read_journal(file: Path) -> list[Event]:
    """All that is written so far; a line that is being written is left out."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="ascii").split("\n")[:-1]
    rows = map(json.loads, lines)
    return [(float(at), float(took), kind, amount) for at, took, kind, amount in rows]
