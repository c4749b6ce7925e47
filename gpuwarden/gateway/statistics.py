# SPDX-License-Identifier: Apache-2.0
"""What has happened at the front door so far, in figures."""

import math
from collections import deque
from dataclasses import dataclass, field

RESPONSES_KEPT = 1000  # what mean and percentile are of
SERVICE_WEIGHT = 0.1  # of the newest in the moving average of service times


@dataclass
class Statistics:
    """Counters since the start; times in seconds."""

    accepted: int = 0
    completed: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    stale_results: int = 0
    service_seconds: float | None = None  # moving average of dispatch to result
    batch_seconds: float | None = None  # moving average of a batch's time on its card
    _responses: deque[float] = field(default_factory=lambda: deque(maxlen=RESPONSES_KEPT))

    def complete(self, response_seconds: float, service_seconds: float) -> None:
        """A request was answered."""
        self.completed += 1
        self._responses.append(response_seconds)
        self.service_seconds = moved(self.service_seconds, service_seconds)

    def ran(self, batch_seconds: float) -> None:
        """A request's batch has run on its card."""
        self.batch_seconds = moved(self.batch_seconds, batch_seconds)

    @property
    def mean_response_seconds(self) -> float | None:
        """Mean of the last responses; None before the first."""
        return math.fsum(self._responses) / len(self._responses) if self._responses else None

    @property
    def p95_response_seconds(self) -> float | None:
        """What 95 of 100 of the last responses stayed within; None before the first."""
        if not self._responses:
            return None
        return sorted(self._responses)[math.ceil(0.95 * len(self._responses)) - 1]

    def retry_after_seconds(self, depth: int, places: float, longest: float) -> int:
        """When a refused caller may find room: the time the queue takes, by measured service times.

        :param places: requests that the workers take at once.
        :param longest: more than this is never asked for.
        """
        wait = (self.service_seconds or 1.0) * depth / max(1, places)
        return max(1, min(math.ceil(wait), math.ceil(longest)))


def moved(mean: float | None, newest: float) -> float:
    """A moving average with one more value."""
    return newest if mean is None else mean + SERVICE_WEIGHT * (newest - mean)
