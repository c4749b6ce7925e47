# SPDX-License-Identifier: Apache-2.0
"""Holds a card just under alert and gives back all that heat doesn't need. Pure.

Design and trials: docs/architecture.md.
"""

import math

from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Reading, Settings, cooler
from gpuwarden.thermal.policy.channel import Channel
from gpuwarden.thermal.policy.emergency import Emergency
from gpuwarden.thermal.policy.fixed import alert_settings, critical_settings
from gpuwarden.thermal.policy.loop import PowerLoop
from gpuwarden.thermal.policy.phase import Phase
from gpuwarden.thermal.policy.sensors import all_below, any_at, hottest, limits_of
from gpuwarden.thermal.policy.sink import SinkEstimate
from gpuwarden.thermal.policy.software import SoftwareLoop
from gpuwarden.thermal.policy.sound import Clock, sound
from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.values import ThermalState

COOL_BELOW_ALERT_CELSIUS = 2.0
# While a limit is new, batches are a quarter smaller: one that began at full clocks ends sooner.
FRESH_SECONDS = 300.0
FRESH_BATCH_LESS = 4
UNKNOWN_RATED_WATTS = 250.0
LONGEST_DECISION_SECONDS = 2.0  # after a gap the loop doesn't make up for it
SINK_HOT = "sink-hot"


class Regulated:
    """Regulates one card.

    :param decide_seconds: between two decisions; an emergency doesn't wait for one.
    :param safe_seconds: how long a card must be cool before what no load asks for is given back.
    """

    def __init__(
        self,
        authority: Authority,
        thresholds: Thresholds,
        decide_seconds: float = 0.5,
        safe_seconds: float = 30.0,
    ) -> None:
        self._decide_seconds = decide_seconds
        self._safe_seconds = safe_seconds
        self._clock = Clock()
        self._emergency = Emergency()
        self._phase = Phase(safe_seconds)
        self._decided_at = -math.inf
        self._cool_since: float | None = None
        self._limited_since: float | None = None
        self._channels: list[Channel] = []
        rated = rated_watts(authority)
        self._power = PowerLoop(authority, rated)
        self._software = SoftwareLoop(authority.max_batch)
        self.adopt(authority, thresholds)

    def adopt(self, authority: Authority, thresholds: Thresholds) -> None:
        """Go on with other means or thresholds; what was learned of the sinks stays."""
        self._authority = authority
        self._limits = limits_of(thresholds)
        rated = rated_watts(authority)
        known = {channel.limits.name: channel.sink for channel in self._channels}
        self._channels = [
            Channel(limits, known.get(limits.name) or SinkEstimate(rated))
            for limits in self._limits
        ]
        self._power.adopt(authority, rated)
        self._software.adopt(authority.max_batch)

    def decide(self, reading: Reading) -> Judgement:
        """Follow the sinks with every reading, decide when it is time."""
        now = self._clock.tell(reading.at_seconds)
        seen = sound(reading, now)
        return self.blind(now) if seen is None else self._follow(seen, now)

    def _follow(self, reading: Reading, now: float) -> Judgement:
        live = [channel for channel in self._channels if channel.see(reading)]
        self._power.see(reading)
        self._software.see(reading, live)
        was_critical = self._emergency.is_critical
        self._emergency.see(self._limits, self._authority, reading)
        if was_critical and not self._emergency.is_critical:
            self._power.come_down(live, critical_settings(self._authority, stop_requested=False))
        passed = now - self._decided_at
        if passed >= self._decide_seconds - 0.01 and not self._emergency.is_critical:
            self._decided_at = now
            self._regulate(reading, live, min(passed, LONGEST_DECISION_SECONDS))
        return self._judge(reading)

    def blind(self, at_seconds: float) -> Judgement:
        """Cooled as at alert, or as it was if that was cooler."""
        settings = cooler(self._settings, alert_settings(self._authority))
        if self._emergency.is_critical:
            critical = critical_settings(self._authority, self._emergency.stop_requested)
            settings = cooler(settings, critical)
        self._power.take(settings)
        return Judgement(ThermalState.BLIND, "no reading", settings)

    @property
    def _is_helpless(self) -> bool:
        """Whether nothing on the card itself can be moved."""
        return self._authority.original_watts is None and self._authority.sm_clocks_mhz is None

    @property
    def _settings(self) -> Settings:
        return self._software.settings if self._is_helpless else self._power.written

    def _regulate(self, reading: Reading, live: list[Channel], passed: float) -> None:
        if self._is_helpless:
            self._software.decide(reading.at_seconds)
            return
        release = self._has_long_been_cool(reading)
        self._power.decide(reading, live, passed, release)

    def _has_long_been_cool(self, reading: Reading) -> bool:
        cool = all_below(self._limits, reading, COOL_BELOW_ALERT_CELSIUS)
        if not cool or self._power.is_binding(reading):
            self._cool_since = None
        elif self._cool_since is None:
            self._cool_since = reading.at_seconds
        since = self._cool_since
        return since is not None and reading.at_seconds - since >= self._safe_seconds

    def _judge(self, reading: Reading) -> Judgement:
        sensor, value = hottest(self._limits, reading)
        if self._emergency.is_critical:
            self._phase.state = ThermalState.ALERT
            settings = critical_settings(self._authority, self._emergency.stop_requested)
            reason = f"{sensor.name} {value:.0f} C, critical is {sensor.critical:.0f} C"
            return Judgement(ThermalState.CRITICAL, reason, settings)
        settings = self._settings
        sink_hot = self._power.sink_hot and not self._is_helpless
        limited = settings != UNTOUCHED and not sink_hot
        at_alert = self._is_at_alert(reading)
        state = self._phase.see(
            reading.at_seconds,
            limited=limited,
            at_alert=at_alert,
            error_celsius=self._error_celsius,
            lowered_at=self._power.pen.lowered_at,
            raised_at=self._power.pen.raised_at,
        )
        if not self._is_helpless:  # there a batch costs answers and cools nothing
            settings = self._with_fresh_batches(reading.at_seconds, limited, settings)
        return Judgement(state, self._reason(state, settings, sensor.name, sensor.alert), settings)

    def _is_at_alert(self, reading: Reading) -> bool:
        if self._is_helpless:
            return self._software.error_celsius < 0  # the die follows each burst: its mean counts
        return any_at(self._limits, reading, "alert")

    @property
    def _error_celsius(self) -> float:
        return self._software.error_celsius if self._is_helpless else self._power.error_celsius

    def _with_fresh_batches(self, now: float, limited: bool, settings: Settings) -> Settings:
        if not limited:
            self._limited_since = None
        elif self._limited_since is None:
            self._limited_since = now
        since, size = self._limited_since, self._authority.max_batch
        if since is None or now - since >= FRESH_SECONDS or size <= 1:
            return settings
        less = size - max(1, size // FRESH_BATCH_LESS)
        return cooler(settings, Settings(batch_limit=less))

    def _reason(self, state: ThermalState, settings: Settings, name: str, alert: float) -> str:
        if state is ThermalState.NORMAL:
            return "" if settings == UNTOUCHED else SINK_HOT
        if state is ThermalState.RECOVERING:
            return "giving back what heat had taken"
        return f"{name} held below alert ({alert:.0f} C)"


def rated_watts(authority: Authority) -> float:
    """What the card is built to draw, for scale."""
    return authority.original_watts or authority.rated_watts or UNKNOWN_RATED_WATTS
