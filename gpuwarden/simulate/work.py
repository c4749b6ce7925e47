# SPDX-License-Identifier: Apache-2.0
"""When a simulated card works: batches one after another, and the rests between them. Pure.

The rests are the gateway's own: its account of work and rest decides here as it does there.
"""

import copy

from gpuwarden.gateway.duty import DutyMeter
from gpuwarden.thermal.decision import FULL_DUTY, Settings

MAX_BATCH = 4  # [workers] max_batch as it comes
BATCH_SECONDS = 1.0  # assumed; what has begun is finished
# Work of a batch that takes the same time whatever its size, as a share of a full batch. With
# batches of 1 instead of 4 the articles' node answered 18 % later, its power limit included.
FIXED_BATCH_SHARE = 0.06


class Shift:
    """The work of one card, which always has more of it waiting."""

    def __init__(self) -> None:
        self._meter = DutyMeter()
        self._until: float | None = None

    def copy(self) -> "Shift":
        """The same shift, to go on elsewhere."""
        twin = copy.copy(self)
        twin._meter = copy.copy(self._meter)
        return twin

    def works(self, settings: Settings, now: float) -> bool:
        """Whether the card works from ``now`` (seconds) until the next call."""
        if self._until is not None and (now >= self._until or settings.stop_requested):
            self._until = None
            self._meter.set_running(0, now)
        if settings.dispatch_duty != self._meter.duty:
            self._meter.set_duty(settings.dispatch_duty, now)
        if self._until is not None:
            return True
        if settings.paused or settings.stop_requested:
            return False
        if settings.dispatch_duty < FULL_DUTY and not self._meter.permits(0, now):
            return False
        self._until = now + BATCH_SECONDS - 1e-6
        self._meter.set_running(1, now)
        return True


def batch_share(batch_limit: int | None) -> float:
    """Throughput with batches of at most ``batch_limit``, as a share of that with full ones."""
    if batch_limit is None or batch_limit >= MAX_BATCH:
        return 1.0
    full = MAX_BATCH / batch_limit
    return 1.0 / (FIXED_BATCH_SHARE * full + 1.0 - FIXED_BATCH_SHARE)
