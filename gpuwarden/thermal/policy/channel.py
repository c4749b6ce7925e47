# SPDX-License-Identifier: Apache-2.0
"""One sensor with the sink under it: how far it is from alert, what power it bears. Pure."""

import math
from dataclasses import dataclass

from gpuwarden.thermal.decision import Reading
from gpuwarden.thermal.policy.sensors import Limits, read_by
from gpuwarden.thermal.policy.sink import SinkEstimate

SET_BELOW_ALERT_CELSIUS = 0.25
CEILING_ABOVE_ALERT_CELSIUS = 1.0
STEP_BELOW_CRITICAL_CELSIUS = 1.5
AHEAD_SECONDS = 1.0  # until a new limit has worked


@dataclass(slots=True)
class Channel:
    """The die, or the memory.

    :ivar reading: in whole degrees, the last one.
    """

    limits: Limits
    sink: SinkEstimate
    reading: float = 0.0

    def see(self, reading: Reading) -> bool:
        """Take in a sample; False where it says nothing of this sensor."""
        value = read_by(self.limits, reading)
        if value is None:
            return False
        self.reading = value
        if reading.power_watts is not None:
            self.sink.see(reading.at_seconds, value, reading.power_watts, reading.power_averaged)
        return True

    @property
    def error_celsius(self) -> float:
        """How far it is below the set point, as finely as the model knows within its degree."""
        celsius = self.reading + 0.5
        if not self.sink.is_frozen and self.sink.celsius is not None:
            model = self.sink.celsius + self.sink.resistance * self.sink.lagged_watts
            celsius = min(max(model, self.reading), self.reading + 1.0)
        return self.limits.alert - SET_BELOW_ALERT_CELSIUS - celsius

    @property
    def set_watts(self) -> float:
        """The power that would put it at the set point within a second."""
        return self._watts_to(self.limits.alert - SET_BELOW_ALERT_CELSIUS)

    def ceiling_watts(self, working: bool) -> float:
        """The most that it bears: working just above alert, by a step from idle below critical."""
        if working:
            return self._watts_to(self.limits.alert + CEILING_ABOVE_ALERT_CELSIUS)
        return self._watts_to(self.limits.critical - STEP_BELOW_CRITICAL_CELSIUS)

    def _watts_to(self, celsius: float) -> float:
        if self.sink.celsius is None:
            return math.inf
        return (celsius - self.sink.ahead(AHEAD_SECONDS)) / self.sink.resistance
