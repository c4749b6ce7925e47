# SPDX-License-Identifier: Apache-2.0
"""What of a reading can be reckoned with, so that no reading can break a policy. Pure.

The sampler rejects what no card can show; this is the second line: nothing that isn't a number, or
is beyond all reason, gets into an estimate that would keep it.
"""

import math
from dataclasses import replace

from gpuwarden.thermal.decision import Reading

CELSIUS = (-100.0, 300.0)
WATTS = (0.0, 10_000.0)
MEGAHERTZ = (0.0, 100_000.0)
FURTHEST_SECONDS = 1e12  # beyond, a float no longer tells a tenth of a second


class Clock:
    """Seconds that never go back, whatever the caller's do."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ahead = 0.0

    def tell(self, at_seconds: float) -> float:
        """The time of a reading; without one that can be, that of the reading before."""
        if math.isnan(at_seconds) or abs(at_seconds) > FURTHEST_SECONDS:
            return self._now
        if at_seconds + self._ahead < self._now:
            self._ahead = self._now - at_seconds
        self._now = at_seconds + self._ahead
        return self._now


def sound(reading: Reading, now: float) -> Reading | None:
    """The reading at ``now`` with what is no figure left out; None where the die's is none."""
    if _within(reading.die_celsius, CELSIUS) is None:
        return None
    memory = _within(reading.memory_celsius, CELSIUS)
    watts = _within(reading.power_watts, WATTS)
    clock = _within(reading.sm_clock_mhz, MEGAHERTZ)
    found = (now, memory, watts, clock)
    given = (reading.at_seconds, reading.memory_celsius, reading.power_watts, reading.sm_clock_mhz)
    if found == given:
        return reading
    return replace(
        reading, at_seconds=now, memory_celsius=memory, power_watts=watts, sm_clock_mhz=clock
    )


def _within(value: float | None, bounds: tuple[float, float]) -> float | None:
    low, high = bounds
    return value if value is not None and low <= value <= high else None
