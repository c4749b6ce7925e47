# SPDX-License-Identifier: Apache-2.0
"""The loop for cards on which nothing can be set: rests, and smaller batches. Pure.

The die follows each burst of work within a second, so rests have authority over its mean, not over
its peak: the mean over ten seconds is held. A batch's size is the other way round. On an H200 that
decodes, batches of 4, 2 and 1 give the same mean, since each token reads all weights whatever the
batch, and 1, 0.55 and 0.3 of the answers; but the larger draws more at its highest. So the duty
holds the mean, and batches shrink for peaks near critical, or where no more rest can be given
(docs/thermal-h200.md).
"""

from dataclasses import replace

from gpuwarden.thermal.decision import FULL_DUTY, Reading, Settings
from gpuwarden.thermal.policy.channel import Channel
from gpuwarden.thermal.policy.mean import SlowMean
from gpuwarden.thermal.policy.rungs import LOWEST_DUTY
from gpuwarden.thermal.policy.sensors import Limits

MEAN_SECONDS = 5.0  # the lag whose answer is nearest to a plain mean over 10 s
DECIDE_SECONDS = 5.0
# Share of the time per degree and step. A die rises by 10 to 50 C over its inlet at full work.
SHARE_PER_CELSIUS = 1 / 20
LARGEST_STEP = 0.5  # of the duty
# What a step does is seen in the mean's trend before all of it has come, after some seconds from
# the die, after a minute or two from the sink: so far ahead the trend is followed.
AHEAD_SECONDS = 15.0
TREND_SECONDS = 15.0  # the trend is what a mean of so long a lag is behind the shorter one
TREND_BELOW_CELSIUS = 2.0  # further below the set point a warming card is no concern
COOL_CELSIUS = 0.25  # no more work is given closer to the set point than that
PEAK_BELOW_CRITICAL_CELSIUS = 3.0
CALM_BELOW_CRITICAL_CELSIUS = 6.0
BATCH_SECONDS = 10.0  # between two steps of the batch limit: a smaller batch tells only then
CALM_SECONDS = 30.0  # without such peaks, before batches grow again


class SoftwareLoop:
    """Moves dispatch duty and batch limit.

    :ivar settings: what is wanted now.
    :ivar error_celsius: how far below its set point the warmest sensor's mean is.
    """

    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch
        self.settings = Settings()
        self.error_celsius = 0.0
        self._limits: tuple[Limits, ...] = ()
        self._mean, self._mean_before = SlowMean(MEAN_SECONDS), SlowMean(TREND_SECONDS)
        self._headroom = float("inf")  # of the highest reading since the last step, to critical
        self._decided_at = self._batch_at = self._peaked_at = float("-inf")

    def adopt(self, max_batch: int) -> None:
        """Go on with batches of another size: a limit that is none any more is let go."""
        self.max_batch = max_batch
        limit = self.settings.batch_limit
        if limit is not None and limit >= max_batch:
            self.settings = replace(self.settings, batch_limit=None)

    def see(self, reading: Reading, channels: list[Channel]) -> None:
        """Follow means and peaks."""
        if not channels:
            return
        limits = tuple(each.limits for each in channels)
        if limits != self._limits:  # other thresholds are no trend of the card's
            self._limits = limits
            self._mean, self._mean_before = SlowMean(MEAN_SECONDS), SlowMean(TREND_SECONDS)
        error = min(each.error_celsius for each in channels)
        self._mean.see(reading.at_seconds, error)
        self._mean_before.see(reading.at_seconds, error)
        self.error_celsius = self._mean.value
        headroom = min(each.limits.critical - each.reading for each in channels)
        self._headroom = min(self._headroom, headroom)

    def decide(self, now: float) -> None:
        """One step of the loop, each few seconds."""
        if now - self._decided_at < DECIDE_SECONDS - 0.01:
            return
        self._decided_at = now
        duty, batch = self._next_duty(), self._next_batch(now)
        self._headroom = float("inf")
        self.settings = Settings(batch_limit=batch, dispatch_duty=duty)

    def _next_duty(self) -> float:
        duty, error = self.settings.dispatch_duty, self.error_celsius
        slope = (self._mean.value - self._mean_before.value) / (TREND_SECONDS - MEAN_SECONDS)
        change = SHARE_PER_CELSIUS * (error + AHEAD_SECONDS * slope)
        most = LARGEST_STEP * duty
        if change < 0 and error < TREND_BELOW_CELSIUS:
            return max(LOWEST_DUTY, duty + max(change, -most))
        if change > 0 and error > COOL_CELSIUS:
            return min(FULL_DUTY, duty + min(change, most))
        return duty

    def _next_batch(self, now: float) -> int | None:
        limit = self.settings.batch_limit
        rested_out = self.settings.dispatch_duty <= LOWEST_DUTY and self.error_celsius < 0
        if self._headroom < CALM_BELOW_CRITICAL_CELSIUS or rested_out:
            self._peaked_at = now
        size = self.max_batch if limit is None else limit
        if self._headroom < PEAK_BELOW_CRITICAL_CELSIUS or rested_out:
            if size <= 1 or now - self._batch_at < BATCH_SECONDS:
                return limit
            self._batch_at = now
            return size // 2
        if limit is None or now - max(self._peaked_at, self._batch_at) < CALM_SECONDS:
            return limit
        self._batch_at = now
        return None if size * 2 >= self.max_batch else size * 2
