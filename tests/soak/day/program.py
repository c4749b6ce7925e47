# SPDX-License-Identifier: Apache-2.0
"""What happens in the course of the day, hour by hour, and what is looked at."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.soak.day.load import Load
from tests.soak.random_kills import processes

HOURS = 24
LOOKS_AN_HOUR = 2
HOT_HOURS, COOL_HOURS = (10, 14, 18), (12, 15, 20)  # of card 0
RECYCLED_HOURS = (3, 6, 9, 13, 17, 21)  # worker 1; worker 0 lives all day


class Place(Protocol):
    """Where the service runs."""

    def processes(self) -> Mapping[str, int]:
        """The main processes that are looked at, by name."""

    def heat(self, hot: bool) -> None:
        """Have card 0 grow hot, or cool again."""

    def recycle(self) -> None:
        """Have worker 1 restarted in order."""


@dataclass(frozen=True)
class Look:
    """What a process held at a moment of the day."""

    hour: float
    name: str
    pid: int
    descriptors: int
    threads: int
    anonymous_kib: int


def busy_share(hour: float) -> float:
    """How much people ask: nothing at three in the morning, most in the afternoon."""
    return (1 - math.cos(2 * math.pi * (hour - 3) / HOURS)) / 2


def run(place: Place, load: Load, seconds: float, tell: Callable[[Look], None]) -> None:
    """Have the whole day pass in ``seconds``."""
    hour_seconds = seconds / HOURS
    began = time.monotonic()
    load.start()
    try:
        for step in range(HOURS * LOOKS_AN_HOUR):
            hour = step / LOOKS_AN_HOUR
            load.share = busy_share(hour)
            if hour in HOT_HOURS or hour in COOL_HOURS:
                place.heat(hour in HOT_HOURS)
            if hour in RECYCLED_HOURS:
                place.recycle()
            time.sleep(max(0.0, began + (hour + 0.5) * hour_seconds - time.monotonic()))
            for name, pid in place.processes().items():
                if (kept := processes.held(pid)) is not None:
                    told = (pid, kept.descriptors, kept.threads, kept.anonymous_kib)
                    tell(Look(hour, name, *told))
    finally:
        load.stop()
