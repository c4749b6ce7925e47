# SPDX-License-Identifier: Apache-2.0
"""How warm the heat sink under a sensor is: what a load step will start from. Pure.

Most of a die's rise is proportional to power and over within a second (H200, measured: 0.033 C/W,
0.34 s); the sink below moves over minutes and has no sensor. So sink = reading - R_fast x watts.
"""

import math
from collections import deque
from typing import NamedTuple

from gpuwarden.thermal.policy.mean import SlowMean

RESISTANCE_PRIOR = 0.05  # C/W: above the 0.034 of the largest dies: too large is the safe side
# C/W: half of what an H100's HBM has; one and a half times the smallest die seen (A4000). Without
# bounds an estimate that went wrong would take the card's whole power (it did in trials).
RESISTANCE_BOUNDS = (0.015, 0.12)
FROZEN_SECONDS = 1.5  # the die needs that long to follow a change of power
# Serving draws a spike with each batch (H200, decode: a change in 77 % of the samples). A power
# that has not rested for so long is judged by means: over seconds the die's lag cancels out.
RESTLESS_SECONDS = 4.0
MEAN_SECONDS = 4.0
CHANGE_SHARE = 0.10  # of the card's power
LEARNED_SHARE = 0.20  # a smaller step says too little against whole degrees
FORGOTTEN_SHARE = 0.2  # with each step that is learned from
WINDOW_SECONDS = 1.0  # also the window of NVML's averaged power
MOST_LOOKS = 64  # three times the window's at 20 Hz: a clock that stands still fills no memory
POWER_LAG_SECONDS = 0.4  # the die's own lag behind its watts
SAMPLE_SECONDS = 0.2  # the gains below are for samples so far apart
LEVEL_GAIN = 0.12
TREND_GAIN = 0.004  # with a trend the estimate follows a ramp without lag
MOST_MISS_CELSIUS = 0.6  # a new degree is a miss by itself, and no trend yet
STEEPEST_TREND = 2.0  # C/s: no sink moves faster
# While the reading stays within a degree nothing tells more: a trend fades, and the estimate tends
# to the middle of the degree, so that the limit creeps up until the next one shows. Steady cards
# were held up to 1 C too cool without (a 3090 at 45 C inlet then loses 5 % of its work).
TREND_FADES_SECONDS = 60.0
CENTRE_SECONDS = 30.0
HALF_DEGREE = 0.5


class Look(NamedTuple):
    """One sample: seconds, Celsius (the middle of the whole degree), watts."""

    at: float
    celsius: float
    watts: float


class SinkEstimate:
    """Follows the sink under one sensor.

    :param rated_watts: the card's power, which changes are measured against.
    :ivar resistance: C/W between sink and sensor, learned within bounds.
    :ivar celsius: where the sensor would be without power; None before the first sample.
    :ivar trend: its rise in C/s.
    """

    def __init__(self, rated_watts: float) -> None:
        self.resistance = RESISTANCE_PRIOR
        self.celsius: float | None = None
        self.trend = 0.0
        self.lagged_watts = 0.0
        self._rated_watts = rated_watts
        self._recent: deque[Look] = deque(maxlen=MOST_LOOKS)
        self._at = -math.inf
        self._frozen_since = self._frozen_until = -math.inf
        self._mean_celsius = SlowMean(MEAN_SECONDS)
        self._mean_watts = SlowMean(MEAN_SECONDS)
        self._before: Look | None = None
        # Least squares through the origin over (watts, degrees) of steps, begun as if a step of
        # half the card's power had shown the prior.
        self._square = rated_watts**2 / 4
        self._product = RESISTANCE_PRIOR * self._square

    @property
    def is_frozen(self) -> bool:
        """Whether the power has just changed, so that reading and watts don't belong together."""
        return self._at < self._frozen_until and not self._is_restless

    @property
    def _is_restless(self) -> bool:
        """Whether the power has not stopped changing for long."""
        lasted = self._at - self._frozen_since
        return self._at < self._frozen_until and lasted >= RESTLESS_SECONDS

    def ahead(self, seconds: float) -> float:
        """The sink so many seconds from now if it goes on warming as it does; needs a sample."""
        assert self.celsius is not None, "asked before the first sample"
        return self.celsius + max(0.0, self.trend) * seconds

    def see(self, at_seconds: float, reading_celsius: float, watts: float, averaged: bool) -> None:
        """Take in one sample.

        :param averaged: the watts are a mean over the last second: so must the degrees be.
        """
        passed = min(max(at_seconds - self._at, 0.0), WINDOW_SECONDS)
        self._at = at_seconds
        self._recent.append(Look(at_seconds, reading_celsius + HALF_DEGREE, watts))
        while self._recent[0].at < at_seconds - WINDOW_SECONDS + 1e-6:
            self._recent.popleft()
        now = self._recent[-1]
        if averaged:
            now = _mean(list(self._recent))._replace(watts=watts)
        self._follow_power(passed, watts, averaged)
        if self._power_moved():
            self._begin_change(at_seconds)
        elif self._before is not None and at_seconds >= self._frozen_until:
            self._learn(self._before)
        self._mean_celsius.see(at_seconds, now.celsius)
        self._mean_watts.see(at_seconds, self.lagged_watts)
        if self._is_restless:
            self._follow_means()
        else:
            self._follow(passed, now.celsius)

    def _follow_power(self, passed: float, watts: float, averaged: bool) -> None:
        if self.celsius is None or averaged:  # an average lags more than the die does
            self.lagged_watts = watts
        share = 1.0 - math.exp(-passed / POWER_LAG_SECONDS)
        self.lagged_watts += (watts - self.lagged_watts) * share

    def _power_moved(self) -> bool:
        watts = [look.watts for look in self._recent]
        return max(watts) - min(watts) > CHANGE_SHARE * self._rated_watts

    def _begin_change(self, at_seconds: float) -> None:
        if at_seconds >= self._frozen_until:
            self._before = _mean(list(self._recent)[:-2] or list(self._recent))
            self._frozen_since = at_seconds
            self._frozen_until = at_seconds + FROZEN_SECONDS
        # While it goes on changing, the wait goes on; the window holds a change for a second.
        elif abs(self._recent[-1].watts - self._recent[-2].watts) > self._small_watts:
            self._frozen_until = at_seconds + FROZEN_SECONDS

    @property
    def _small_watts(self) -> float:
        return CHANGE_SHARE * self._rated_watts / 4

    def _learn(self, before: Look) -> None:
        self._before = None
        after = _mean(list(self._recent)[-3:])
        step = after.watts - before.watts
        if abs(step) < LEARNED_SHARE * self._rated_watts:
            return
        kept = 1.0 - FORGOTTEN_SHARE
        self._square = kept * self._square + step**2
        self._product = kept * self._product + step * (after.celsius - before.celsius)
        low, high = RESISTANCE_BOUNDS
        learned = min(high, max(low, self._product / self._square))
        if self.celsius is not None:
            self.celsius -= (learned - self.resistance) * after.watts
            self.trend = 0.0
        self.resistance = learned

    def _follow_means(self) -> None:
        self._before = None  # no step to learn from in that
        self.trend = 0.0
        self.celsius = self._mean_celsius.value - self.resistance * self._mean_watts.value

    def _follow(self, passed: float, celsius: float) -> None:
        seen = celsius - self.resistance * self.lagged_watts
        if self.celsius is None:
            self.celsius = seen
            return
        if self.is_frozen:
            return  # no trend either: it was seen before the change
        self.celsius += self.trend * passed
        # A whole degree says no more than between which two: within them the estimate stands.
        high, low = seen + HALF_DEGREE, seen - HALF_DEGREE
        miss = max(0.0, low - self.celsius) + min(0.0, high - self.celsius)
        if miss == 0.0:
            self.trend *= math.exp(-passed / TREND_FADES_SECONDS)
            self.celsius += (seen - self.celsius) * (1.0 - math.exp(-passed / CENTRE_SECONDS))
        samples = passed / SAMPLE_SECONDS
        self.celsius += min(1.0, LEVEL_GAIN * samples) * miss
        step = min(MOST_MISS_CELSIUS, max(-MOST_MISS_CELSIUS, miss))
        self.trend += TREND_GAIN * samples * step / SAMPLE_SECONDS
        self.trend = min(STEEPEST_TREND, max(-STEEPEST_TREND, self.trend))


def _mean(looks: list[Look]) -> Look:
    count = len(looks)
    return Look(
        looks[-1].at,
        sum(look.celsius for look in looks) / count,
        sum(look.watts for look in looks) / count,
    )
