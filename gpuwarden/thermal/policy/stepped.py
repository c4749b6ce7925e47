"""The policy of the articles: a fixed cap at alert, the least at critical, all back at safe."""

from gpuwarden.thermal.decision import UNTOUCHED, Authority, Judgement, Reading, cooler
from gpuwarden.thermal.policy.emergency import Emergency
from gpuwarden.thermal.policy.fixed import alert_settings, critical_settings
from gpuwarden.thermal.policy.sensors import all_safe, any_at, hottest, limits_of
from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.values import ThermalState


class Stepped:
    """Three steps and a wait.

    :param safe_seconds: how long every sensor must read safe before everything is given back.
    """

    def __init__(
        self, authority: Authority, thresholds: Thresholds, safe_seconds: float = 30.0
    ) -> None:
        self.adopt(authority, thresholds)
        self._safe_seconds = safe_seconds
        self._emergency = Emergency()
        self._hot = False
        self._safe_since: float | None = None

    def adopt(self, authority: Authority, thresholds: Thresholds) -> None:
        """Go on with other means or thresholds."""
        self._authority = authority
        self._limits = limits_of(thresholds)

    def decide(self, reading: Reading) -> Judgement:
        """The step for this reading."""
        self._emergency.see(self._limits, self._authority, reading)
        if any_at(self._limits, reading, "alert") or self._emergency.is_critical:
            self._hot, self._safe_since = True, None
        elif not all_safe(self._limits, reading):
            self._safe_since = None
        elif self._safe_since is None:
            self._safe_since = reading.at_seconds
        elif reading.at_seconds - self._safe_since >= self._safe_seconds:
            self._hot = False
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

    def blind(self, at_seconds: float) -> Judgement:
        """Cooled as at alert, or as at critical if it was."""
        self._hot, self._safe_since = True, None
        settings = alert_settings(self._authority)
        if self._emergency.is_critical:
            critical = critical_settings(self._authority, self._emergency.stop_requested)
            settings = cooler(settings, critical)
        return Judgement(ThermalState.BLIND, "no reading", settings)
