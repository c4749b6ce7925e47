# SPDX-License-Identifier: Apache-2.0
"""The policy of the articles: a fixed cap at alert, the least at critical, all back at safe."""

from dataclasses import replace

from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Reading, cooler
from gpuwarden.thermal.policy.emergency import Emergency
from gpuwarden.thermal.policy.fixed import (
    alert_settings,
    critical_settings,
    no_higher,
    within_means,
)
from gpuwarden.thermal.policy.sensors import all_safe, any_at, hottest, limits_of
from gpuwarden.thermal.policy.sound import Clock, sound
from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.values import ThermalState


class Stepped:
    """Three steps and a wait.

    :param safe_seconds: how long every sensor must read safe before everything is given back.
    """

    def __init__(
        self, authority: Authority, thresholds: Thresholds, safe_seconds: float = 30.0
    ) -> None:
        self._clock = Clock()
        self._settings = UNTOUCHED
        self.adopt(authority, thresholds)
        self._safe_seconds = safe_seconds
        self._emergency = Emergency()
        self._hot = False
        self._safe_since: float | None = None

    def adopt(self, authority: Authority, thresholds: Thresholds) -> None:
        """Go on with other means or thresholds."""
        self._authority = authority
        self._limits = limits_of(thresholds)
        self._settings = within_means(self._settings, authority)

    def decide(self, reading: Reading) -> Judgement:
        """The step for this reading."""
        now = self._clock.tell(reading.at_seconds)
        seen = sound(reading, now)
        if seen is None:
            return self.blind(now)
        self._emergency.see(self._limits, self._authority, seen)
        at_alert = any_at(self._limits, seen, "alert")
        if at_alert or self._emergency.is_critical:
            self._hot, self._safe_since = True, None
        elif not all_safe(self._limits, seen):
            self._safe_since = None
        elif self._safe_since is None:
            self._safe_since = now
        elif now - self._safe_since >= self._safe_seconds:
            self._hot = False
        judgement = self._judge(seen)
        if at_alert:
            judgement = replace(judgement, settings=no_higher(judgement.settings, self._settings))
        self._settings = judgement.settings
        return judgement

    def blind(self, at_seconds: float) -> Judgement:
        """Cooled as at alert, or as it was if that was cooler."""
        self._hot, self._safe_since = True, None
        settings = no_higher(alert_settings(self._authority), self._settings)
        if self._emergency.is_critical:
            critical = critical_settings(self._authority, self._emergency.stop_requested)
            settings = cooler(settings, critical)
        self._settings = settings
        return Judgement(ThermalState.BLIND, "no reading", settings)

    def _judge(self, reading: Reading) -> Judgement:
        sensor, value = hottest(self._limits, reading)
        text = f"{sensor.name} {value:.0f} C"
        if self._emergency.is_critical:
            settings = critical_settings(self._authority, self._emergency.stop_requested)
            reason = f"{text}, critical is {sensor.critical:.0f} C"
            return Judgement(ThermalState.CRITICAL, reason, settings)
        if not self._hot:
            return Judgement(ThermalState.NORMAL, "", UNTOUCHED)
        settings = alert_settings(self._authority)
        if self._safe_since is not None:
            reason = f"{text}, at or below safe ({sensor.safe:.0f} C)"
            return Judgement(ThermalState.RECOVERING, reason, settings)
        reason = f"{text}, alert is {sensor.alert:.0f} C"
        return Judgement(ThermalState.ALERT, reason, settings)
