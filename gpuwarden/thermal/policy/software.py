"""The loop for cards on which nothing can be set: fewer requests at a time, then rests. Pure.

The die follows each burst of work within a second, so rests have authority over its mean, not over
its peak: the mean over ten seconds is held.
"""

from gpuwarden.thermal.decision import Authority, Reading, Settings
from gpuwarden.thermal.policy.channel import Channel
from gpuwarden.thermal.policy.mean import SlowMean
from gpuwarden.thermal.policy.rungs import Rungs

MEAN_SECONDS = 5.0  # the lag whose answer is nearest to a plain mean over 10 s
DECIDE_SECONDS = 5.0
# Share of the work per degree and step. A die's rise over its inlet is some 40 C, so 1/40 would
# correct a degree at once; half of that, because the sink follows later.
SHARE_PER_CELSIUS = 0.0125
# The mean itself swings by as much with the rests (H200, whose die falls 20 C in each).
BELOW_SET_POINT_CELSIUS = 0.5
COOL_CELSIUS = 0.5  # no more work is given closer to the set point than that


class SoftwareLoop:
    """Moves batch limit and duty.

    :ivar settings: what is wanted now.
    :ivar error_celsius: how far below its set point the warmest sensor's mean is.
    """

    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch
        self.settings = Settings()
        self.error_celsius = 0.0
        self._rungs = Rungs(Authority(max_batch=max_batch))
        self._mean = SlowMean(MEAN_SECONDS)
        self._decided_at: float | None = None

    def see(self, reading: Reading, channels: list[Channel]) -> None:
        """Follow the means."""
        if channels:
            self._mean.see(reading.at_seconds, min(each.error_celsius for each in channels))
            self.error_celsius = self._mean.value - BELOW_SET_POINT_CELSIUS

    def decide(self, now: float) -> None:
        """One step of the loop, each few seconds."""
        if self._decided_at is not None and now - self._decided_at < DECIDE_SECONDS:
            return
        self._decided_at = now
        self._rungs.adopt(Authority(max_batch=self.max_batch))
        change = SHARE_PER_CELSIUS * self.error_celsius
        if change < 0:
            self._rungs.lower(-change, 1.0, None, now)
        elif self.error_celsius > COOL_CELSIUS:
            self._rungs.rise(change, 1.0, now)
        self.settings = Settings(batch_limit=self._rungs.batch, dispatch_duty=self._rungs.duty)
