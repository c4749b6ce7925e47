# SPDX-License-Identifier: Apache-2.0
"""Where the time of a load goes: the seconds of an engine's parts, by wrapping them."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Phases:
    """Seconds by name, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """One part."""
        began = time.monotonic()
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - began

    def wrap(self, owner: Any, function: str, name: str) -> None:
        """Time all calls of a function of a module or class, where it has one of that name."""
        inner = getattr(owner, function, None)
        if inner is None:
            return

        @functools.wraps(inner)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.during(name):
                return inner(*arguments, **named)

        setattr(owner, function, timed)
