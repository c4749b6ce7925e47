# SPDX-License-Identifier: Apache-2.0
"""When a card is critical, and when not even that helps. Pure."""

import math

from gpuwarden.thermal.decision import Authority, Reading
from gpuwarden.thermal.policy.sensors import Limits, all_safe, any_at, read_by

RELEASE_CELSIUS = 3.0  # below critical, so that it doesn't flutter
LEAST_SECONDS = 2.0  # the die follows less power within one
STOP_BELOW_SHUTDOWN_CELSIUS = 3.0
RISING_AFTER_SECONDS = 5.0
HELPLESS_SECONDS = 30.0  # at least power and without work, a card that can cool has cooled by then


class Emergency:
    """Follows one card into critical and out of it.

    :ivar is_critical: whether the card must draw as little as it can.
    :ivar stop_requested: whether its workers must go.
    """

    def __init__(self) -> None:
        self.is_critical = False
        self.stop_requested = False
        self._since = -math.inf
        self._least_excess: float | None = None

    def see(self, limits: tuple[Limits, ...], authority: Authority, reading: Reading) -> None:
        """Take in one reading."""
        hot = any_at(limits, reading, "critical") or reading.slowed_by_hardware
        if hot and not self.is_critical:
            self.is_critical, self._since, self._least_excess = True, reading.at_seconds, None
        if not self.is_critical:
            return
        self._consider_stop(hot, limits, authority, reading)
        if self.stop_requested:
            self.stop_requested = not all_safe(limits, reading)
        released = not hot and all(
            value <= each.critical - RELEASE_CELSIUS
            for each in limits
            if (value := read_by(each, reading)) is not None
        )
        lasted = reading.at_seconds - self._since
        if released and lasted >= LEAST_SECONDS and not self.stop_requested:
            self.is_critical = False

    def _consider_stop(
        self, hot: bool, limits: tuple[Limits, ...], authority: Authority, reading: Reading
    ) -> None:
        lasted = reading.at_seconds - self._since
        shutdown = authority.shutdown_celsius
        if shutdown is not None and reading.die_celsius >= shutdown - STOP_BELOW_SHUTDOWN_CELSIUS:
            self.stop_requested = True
        if lasted >= LEAST_SECONDS:
            excess = max(
                value - each.critical
                for each in limits
                if (value := read_by(each, reading)) is not None
            )
            least = excess if self._least_excess is None else self._least_excess
            self._least_excess = min(least, excess)
            rising = excess > self._least_excess
            if hot and rising and lasted >= RISING_AFTER_SECONDS:
                self.stop_requested = True
        if hot and lasted >= HELPLESS_SECONDS:
            self.stop_requested = True
