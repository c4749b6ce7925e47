# SPDX-License-Identifier: Apache-2.0
"""Which state a regulated card is in. Pure."""

from gpuwarden.values import ThermalState

CALM_CELSIUS = 1.5  # below the set point, while more power is given
CALM_SECONDS = 60.0  # since the last lowering; a card under bursts isn't recovering after each
WARM_CELSIUS = 0.5  # below the set point: heat is back


class Phase:
    """normal, alert (held back by heat, or as warm as alert), recovering (given back, watched).

    :param safe_seconds: how long a card is watched after it got everything back.
    """

    def __init__(self, safe_seconds: float) -> None:
        self.state = ThermalState.NORMAL
        self._safe_seconds = safe_seconds
        self._free_since: float | None = None

    def see(
        self,
        now: float,
        *,
        limited: bool,
        at_alert: bool,
        error_celsius: float,
        lowered_at: float,
        raised_at: float,
    ) -> ThermalState:
        """The state after a decision.

        :param limited: heat holds the card back.
        :param error_celsius: how far below the set point the warmest sensor is.
        """
        if limited or at_alert:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
        calm = error_celsius > CALM_CELSIUS and raised_at > lowered_at
        if at_alert:
            self.state = ThermalState.ALERT
        elif self._free_since is not None:
            if self.state is ThermalState.ALERT:
                self.state = ThermalState.RECOVERING
            elif now - self._free_since >= self._safe_seconds:
                self.state = ThermalState.NORMAL
        elif self.state is ThermalState.NORMAL:
            self.state = ThermalState.ALERT
        elif self.state is ThermalState.ALERT:
            if calm and now - lowered_at >= CALM_SECONDS:
                self.state = ThermalState.RECOVERING
        elif error_celsius < WARM_CELSIUS and lowered_at > raised_at:
            self.state = ThermalState.ALERT
        return self.state
