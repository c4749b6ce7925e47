# SPDX-License-Identifier: Apache-2.0
"""Recordings of a node, as a test wants them."""

import random
from typing import Any

from gpuwarden.baseline.recording import (
    CardWindow,
    RecordedCard,
    Recording,
    Requests,
    Times,
    Window,
)

BOUNDS = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0]


def times(seconds: float, count: int = 100) -> Times:
    """So many requests, all of about that long."""
    place = next((n for n, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
    counts = [0.0] * (len(BOUNDS) + 1)
    counts[place] = float(count)
    return Times(bounds=BOUNDS, counts=counts, sum_seconds=seconds * count)


def requests(seconds: float, count: int = 100, failed: int = 0) -> Requests:
    return Requests(
        completed=count,
        failed=failed,
        rejected=0,
        cancelled=0,
        total=times(seconds, count),
        waiting=times(seconds / 4, count),
        computing=times(seconds * 3 / 4, count),
        batches=count / 2,
        batched=count,
    )


def window(number: int, seconds: float = 0.8, celsius: float = 70.0, **changes: Any) -> Window:
    card = CardWindow(
        celsius_mean=celsius - 1,
        celsius_highest=celsius,
        watts_mean=300.0,
        vram_used_bytes_highest=2**30,
        throttled_share=0.0,
    )
    values: dict[str, Any] = {
        "start_seconds": number * 25.0,
        "seconds": 25.0,
        "requests": requests(seconds),
        "cards": {0: card},
    }
    return Window(**{**values, **changes})


def recording(
    name: str, seconds: float = 0.8, *, spread: float = 0.05, windows: int = 12, **changes: Any
) -> Recording:
    """A recording whose windows vary by a share of their mean time, the same for the same name."""
    chance = random.Random(name)
    values: dict[str, Any] = {
        "name": name,
        "version": "0.1.0",
        "started_unix_microseconds": 1_800_000_000_000_000,
        "window_seconds": 25.0,
        "windows_wanted": 12,
        "host": "node-1",
        "machine": "0123456789ab",
        "cards": [RecordedCard(index=0, uuid="GPU-0", name="NVIDIA H200")],
        "models": ["gemma"],
        "settings": {"[workers] max_batch": "4", "processors: CPU governor": "performance"},
        "windows": [window(n, seconds * (1 + chance.gauss(0, spread))) for n in range(windows)],
    }
    return Recording(**{**values, **changes})
