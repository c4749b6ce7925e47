# SPDX-License-Identifier: Apache-2.0
"""The loop that holds a card's power where its sensors are just under alert. Pure.

Below a ceiling from the sinks' estimated temperatures, a velocity-form PI term: the integral of the
error by the total resistance, and as the proportional part the sink's own trend, which does not
jump with the load.
"""

import math
from dataclasses import dataclass

from gpuwarden.thermal.decision import Authority, Reading, Settings
from gpuwarden.thermal.policy.channel import Channel
from gpuwarden.thermal.policy.fixed import no_higher, within_means
from gpuwarden.thermal.policy.mean import SlowMean
from gpuwarden.thermal.policy.pen import RISE_EVERY_SECONDS, Pen
from gpuwarden.thermal.policy.rungs import Rungs

# Rise of a card's die at full power, taken for the total resistance: the gain is 1/55 of the card's
# power a degree. The presets lie between 28 (H200) and 70 C (A4000).
DEGREES_OF_FULL_POWER = 55.0
TRIM_PER_SECOND = 0.03  # near the set point: the sink takes a minute to answer
FAR_TRIM_PER_SECOND = 0.10
NEAR_CELSIUS = 0.5
LEAP_CELSIUS = 2.0  # from here on the sink's estimate says how far to rise at once ...
# A power that never rests where a decision falls doesn't hold a rise back for ever.
FAR_SECONDS = 5.0
LEAP_SHARE = 0.6  # ... and so much of that is taken
SURE_SHARE = 1.15  # of the original limit: what holds with that holds with the original
TREND_BELOW_CELSIUS = 3.0  # further below the set point a warming sink is no concern
RISE_SHARE = 0.05  # of the card's power above what is written
HOT_CELSIUS = 0.75  # above the set point
WAITING_SHARE = 0.03  # a little more than a coarse change
BINDING_SHARE = 0.04  # of the card's power: closer to its limit than that, the limit binds
CLOCK_BINDING_MHZ = 30.0  # two steps of the clock
CLOCK_BINDING_SHARE = 0.4  # of the limit: an idle card with a context keeps its clocks up, too
WORKING_SHARE = 0.5  # of the card's power
PROBE_SHARE = 0.10  # of the card's power: a step of a release that no load asks for
DRAWN_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Situation:
    """The card at a decision.

    :ivar error_celsius: below the set point, of the warmest sensor.
    :ivar binding: whether what is written holds the card back.
    :ivar may_rise: no sensor is at alert.
    """

    now: float
    passed: float
    drawn_watts: float
    clock_mhz: float | None
    error_celsius: float
    trend: float
    frozen: bool
    binding: bool
    may_rise: bool
    ceiling_watts: float
    set_watts: float


class PowerLoop:
    """Moves power limit and clocks; batches and duty only where these have no authority left.

    :ivar written: the settings as they were last worth a write.
    :ivar sink_hot: the limit is lowered for the step that may come, not for the work that runs.
    """

    def __init__(self, authority: Authority, rated_watts: float) -> None:
        self.written = Settings()
        self.sink_hot = False
        self.error_celsius = 0.0
        self.pen = Pen()
        self._far_since = math.inf
        self._rungs = Rungs(authority)
        self._drawn = SlowMean(DRAWN_SECONDS)
        self.adopt(authority, rated_watts)

    def adopt(self, authority: Authority, rated_watts: float) -> None:
        """Go on with other means."""
        self._authority = authority
        self._rated = rated_watts
        self._rungs.adopt(authority)
        self.written = within_means(self.written, authority)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back."""
        return self.written == Settings()

    def see(self, reading: Reading) -> None:
        """Follow the power between decisions."""
        if reading.power_watts is not None:
            self._drawn.see(reading.at_seconds, reading.power_watts)

    def come_down(self, channels: list[Channel], held: Settings) -> None:
        """After an emergency: go on to where the sinks say that the card will hold.

        :param held: what held it meanwhile; that stays until no sensor is at alert.
        """
        self._rungs.take(min(channel.set_watts for channel in channels))
        self.written = no_higher(self.written, held)

    def take(self, settings: Settings) -> None:
        """Go on from settings that were in force meanwhile."""
        if settings.power_limit_watts is not None:
            self._rungs.take(settings.power_limit_watts)
        self.written = settings

    def decide(
        self, reading: Reading, channels: list[Channel], passed: float, release: bool
    ) -> Settings:
        """One step of the loop.

        :param channels: those sensors that said something; at least one.
        :param passed: seconds since the last step.
        :param release: the card has long been cool and no load asks for more.
        """
        seen = self._situation(reading, channels, passed)
        self.error_celsius = seen.error_celsius
        far = seen.error_celsius > LEAP_CELSIUS
        self._far_since = min(self._far_since, seen.now) if far else math.inf
        self._trim(seen)
        self._obey_ceiling(seen)
        if release and not seen.binding:
            self._probe(seen)
        self._write(seen)
        return self.written

    def is_binding(self, reading: Reading) -> bool:
        """Whether what is written holds the card back: its power at the limit, or its clock."""
        written, limit = self.written, self._limit_written
        if reading.power_watts is None or limit is None:
            return True
        if reading.power_watts >= limit - BINDING_SHARE * self._rated:
            return True
        if written.sm_clock_mhz is None or reading.sm_clock_mhz is None:
            return False
        at_lock = reading.sm_clock_mhz >= written.sm_clock_mhz - CLOCK_BINDING_MHZ
        return at_lock and self._drawn.value >= CLOCK_BINDING_SHARE * limit

    @property
    def _limit_written(self) -> float | None:
        written = self.written.power_limit_watts
        return self._authority.original_watts if written is None else written

    def _situation(self, reading: Reading, channels: list[Channel], passed: float) -> Situation:
        binding = self.is_binding(reading)
        drawn = self._rated if reading.power_watts is None else self._drawn.value
        working = binding or drawn >= WORKING_SHARE * self._rated
        ceiling = min(channel.ceiling_watts(working) for channel in channels)
        if not working:
            self.sink_hot = self.is_idle or self.sink_hot
        elif binding:
            self.sink_hot = False
        return Situation(
            now=reading.at_seconds,
            passed=passed,
            drawn_watts=drawn,
            clock_mhz=reading.sm_clock_mhz,
            error_celsius=min(channel.error_celsius for channel in channels),
            trend=max(0.0 if c.sink.is_frozen else c.sink.trend for c in channels),
            frozen=any(channel.sink.is_frozen for channel in channels),
            binding=binding,
            may_rise=all(channel.reading < channel.limits.alert for channel in channels),
            ceiling_watts=ceiling,
            set_watts=min(channel.set_watts for channel in channels),
        )

    def _trim(self, seen: Situation) -> None:
        error, rungs = seen.error_celsius, self._rungs
        far = min(1.0, max(0.0, abs(error) - NEAR_CELSIUS))
        rate = TRIM_PER_SECOND + (FAR_TRIM_PER_SECOND - TRIM_PER_SECOND) * far
        trend = seen.trend if error < TREND_BELOW_CELSIUS else 0.0
        degrees = (rate * error - max(0.0, trend)) * seen.passed
        change = self._rated / DEGREES_OF_FULL_POWER * degrees
        limited = not rungs.is_untouched
        if change < 0 and (error < 0 or seen.binding) and (limited or error < NEAR_CELSIUS):
            rungs.lower(-change, seen.drawn_watts, self._working_clock(seen), seen.now)
        elif change > 0 and limited and seen.binding and seen.may_rise:
            self._rise(seen, change)

    def _working_clock(self, seen: Situation) -> float | None:
        """What the SMs run at under load; an idle card's clock says nothing."""
        return seen.clock_mhz if seen.drawn_watts >= WORKING_SHARE * self._rated else None

    def _rise(self, seen: Situation, change: float) -> None:
        rungs, limit = self._rungs, self._limit_written
        rested = seen.now - self.pen.raised_at >= RISE_EVERY_SECONDS
        if seen.error_celsius > LEAP_CELSIUS:
            if not rested or (seen.frozen and seen.now - self._far_since < FAR_SECONDS):
                return  # the estimate first, then one step
            original = self._authority.original_watts
            if original is not None and seen.set_watts > original:
                rungs.free_clock()  # even the original limit would hold it for now
            goal = seen.drawn_watts + LEAP_SHARE * (seen.set_watts - seen.drawn_watts)
            if original is not None and seen.set_watts > SURE_SHARE * original:
                goal = original
            held = seen.drawn_watts if rungs.limit_watts is None else rungs.limit_watts
            if rungs.clock_mhz is not None:
                held = seen.drawn_watts
            rungs.rise(max(change, goal - held), seen.drawn_watts, seen.now)
            return
        if limit is not None and rungs.limit_watts is not None and rungs.clock_mhz is None:
            # Not further than the card has been seen to bear.
            change = min(change, limit + RISE_SHARE * self._rated - rungs.limit_watts)
        if change > 0:
            rungs.rise(change, seen.drawn_watts, seen.now)

    def _obey_ceiling(self, seen: Situation) -> None:
        rungs, ceiling = self._rungs, seen.ceiling_watts
        rungs.cap(ceiling)
        beyond = seen.drawn_watts - ceiling
        if seen.binding and ceiling < self._authority.minimum_watts and beyond > 0:
            rungs.cap_clock(max(0.0, ceiling) / seen.drawn_watts, seen.clock_mhz)

    def _probe(self, seen: Situation) -> None:
        if seen.now - self.pen.raised_at < RISE_EVERY_SECONDS or not seen.may_rise:
            return
        step = PROBE_SHARE * self._rated
        rungs = self._rungs
        rungs.rise(step, max(seen.drawn_watts, step), seen.now)
        wanted = rungs.limit_watts
        rungs.cap(seen.ceiling_watts)
        if rungs.limit_watts != wanted and not rungs.limits_work:
            self.sink_hot = True  # all that is left is for the step that may come

    def _write(self, seen: Situation) -> None:
        rungs, hot = self._rungs, seen.error_celsius < -HOT_CELSIUS
        limit = self._limit_to_write(seen, hot)
        clock = self._clock_to_write(seen, hot)
        self.written = Settings(
            power_limit_watts=limit,
            sm_clock_mhz=clock,
            memory_clock_mhz=None if clock is None else self._authority.memory_clock_mhz,
            batch_limit=rungs.batch,
            dispatch_duty=rungs.duty,
        )
        if seen.may_rise and not hot and seen.ceiling_watts > (self._limit_written or 0.0):
            # What waits for its write waits here, or the loop would wind up behind it.
            top = (self._authority.sm_clocks_mhz or (0, 0))[1]
            rungs.keep_near(
                self._limit_written, WAITING_SHARE * self._rated, clock, WAITING_SHARE * top
            )
        if rungs.is_untouched:
            self.sink_hot = False

    def _limit_to_write(self, seen: Situation, hot: bool) -> float | None:
        original, wanted = self._authority.original_watts, self._rungs.limit_watts
        if original is None or wanted is None:
            return None
        old = self._limit_written or original
        edge = wanted >= original or wanted <= self._authority.minimum_watts
        if wanted > old and not seen.may_rise:
            wanted = old
        if self.pen.writes(seen.now, old, wanted, self._rated, edge=edge, hot=hot):
            old = wanted
        return None if old >= original else round(old, 1)

    def _clock_to_write(self, seen: Situation, hot: bool) -> int | None:
        clocks = self._authority.sm_clocks_mhz
        if clocks is None:
            return None
        old, wanted = self.written.sm_clock_mhz, self._rungs.clock_to_lock
        old_mhz, wanted_mhz = old or clocks[1], wanted or clocks[1]
        if wanted_mhz > old_mhz and not seen.may_rise:
            return old
        if wanted_mhz < old_mhz and not seen.binding and seen.error_celsius > 0:
            return old  # the work that it was meant for is over
        edge = wanted is None or wanted <= clocks[0]
        if old is None and wanted is not None and wanted_mhz == old_mhz:
            return wanted
        if self.pen.writes(seen.now, old_mhz, wanted_mhz, clocks[1], edge=edge, hot=hot):
            return wanted
        return old
