# SPDX-License-Identifier: Apache-2.0
"""Means that need no list. Pure."""

import math


class SlowMean:
    """A first-order lag.

    :ivar value: the mean so far; 0 before the first sample.
    """

    def __init__(self, seconds: float) -> None:
        self.value = 0.0
        self._seconds = seconds
        self._at: float | None = None

    def see(self, now: float, value: float) -> None:
        """Take in one sample."""
        if self._at is None:
            self.value = value
        else:
            passed = max(0.0, now - self._at)
            self.value += (value - self.value) * (1.0 - math.exp(-passed / self._seconds))
        self._at = now
