# SPDX-License-Identifier: Apache-2.0
"""Which readings of a sensor can be believed. Pure, but for the memory of one sensor.

A die follows its power within a second: an H200 went from 41 to 60 C between one second and the
next, and back. So a jump is no fault as long as power moved with it, seen over the seconds around
it, since NVML's average lags the die. Unseen within that average, a card at half duty with a period
of 0.1 s still swings by 12 C. Only what is beyond both is doubted.

Doubt never lasts: a new level that persists is taken, a hotter one soon (the second hot reading
within a few seconds is refused at most, so a card that swings can't hide its peaks), a cooler one
later. Until then the hotter of the two stands.
"""

from collections import deque
from dataclasses import dataclass, field

# The half-duty swing of 12 C (tests/unit/data/h200_step.csv, from 180 s on) and a whole-degree
# sensor at each end of it, and one more.
UNEXPLAINED_CELSIUS = 15.0
# What a step of the whole power limit moves a die by: 24 C on an H200 (0.034 C/W), 16 C on a 3090,
# 35 C on the largest card of which figures are known; and something over.
FULL_STEP_CELSIUS = 40.0
# Two samples of the slowest rate (1 Hz), and a bit: a step between two of them is still seen.
POWER_WINDOW_SECONDS = 2.5
AVERAGING_SECONDS = 1.0
# After so long without a reading that could be believed anything may have happened. Half of the
# 3 s after which a card counts as blind.
FORGOTTEN_AFTER_SECONDS = 1.5
HOTTER_REFUSALS, COOLER_REFUSALS = 2, 8
REFUSALS_COUNT_FOR_SECONDS = 10.0

# How far the margin that the card names may be from the one that follows from its die: both are
# whole degrees of two moments half a millisecond apart, and scales differ by up to 3 C.
MARGIN_CELSIUS = 5.0
MARGIN_CHECKS = 3


@dataclass(slots=True)
class Jumps:
    """Judges one sensor's readings one after the other."""

    _at: float = 0.0
    _celsius: float | None = None
    _powers: deque[tuple[float, float]] = field(default_factory=deque)
    _hotter: deque[float] = field(default_factory=deque)
    _cooler: deque[float] = field(default_factory=deque)

    @property
    def last_celsius(self) -> float | None:
        """The last reading that was believed."""
        return self._celsius

    def doubt(
        self, at: float, celsius: float, watts: float | None, full_watts: float | None
    ) -> str:
        """Why this reading can't be believed yet; empty where it can.

        :param at: seconds of a clock that only goes forward.
        :param full_watts: the card's highest limit; None where it doesn't say.
        """
        self._note_power(at, watts)
        before = self._celsius
        if before is None or at - self._at > FORGOTTEN_AFTER_SECONDS:
            self._believe(at, celsius)
            return ""
        jump = celsius - before
        if abs(jump) <= self._explained(full_watts) or self._is_settled(jump, at):
            self._believe(at, celsius)
            return ""
        return (
            f"the sensor went from {before:.0f} to {celsius:.0f} C within {at - self._at:.1f} s, "
            "which no change of power explains"
        )

    def _believe(self, at: float, celsius: float) -> None:
        self._at, self._celsius = at, celsius

    def _note_power(self, at: float, watts: float | None) -> None:
        if watts is not None:
            self._powers.append((at, watts))
        while self._powers and at - self._powers[0][0] > POWER_WINDOW_SECONDS:
            self._powers.popleft()

    def _explained(self, full_watts: float | None) -> float:
        """How far the die may have moved, by what power did around it."""
        if not self._powers or not full_watts:
            return UNEXPLAINED_CELSIUS + FULL_STEP_CELSIUS
        watts = [value for _, value in self._powers]
        moved = max(watts) - min(watts)
        if len(self._powers) > 1:
            # A mean over a second that climbs so fast hides a step of its slope times a second.
            (before_at, before), (at, now) = self._powers[-2], self._powers[-1]
            if at > before_at:
                moved = max(moved, abs(now - before) / (at - before_at) * AVERAGING_SECONDS)
        return UNEXPLAINED_CELSIUS + FULL_STEP_CELSIUS * min(moved / full_watts, 1.0)

    def _is_settled(self, jump: float, at: float) -> bool:
        """Whether so much was refused lately that this has to be taken; counts it otherwise."""
        refused = self._hotter if jump > 0 else self._cooler
        most = HOTTER_REFUSALS if jump > 0 else COOLER_REFUSALS
        while refused and at - refused[0] > REFUSALS_COUNT_FOR_SECONDS:
            refused.popleft()
        if len(refused) >= most:
            return True
        refused.append(at)
        return False


@dataclass(slots=True)
class MarginCheck:
    """Whether the die's sensor and the margin to the card's own limit tell the same story."""

    _disagreements: int = 0

    def hotter_celsius(
        self,
        die_celsius: float,
        memory_celsius: float | None,
        margin_celsius: float | None,
        maximum_celsius: float | None,
        memory_maximum_celsius: float | None,
    ) -> float | None:
        """What the margin says that the die has, if that is hotter, has been so for a while, and
        the memory's own heat doesn't explain it; None otherwise. To be asked once a second."""
        if margin_celsius is None or maximum_celsius is None:
            self._disagreements = 0
            return None
        implied = maximum_celsius - margin_celsius
        memory_margin = (
            memory_maximum_celsius - memory_celsius
            if memory_celsius is not None and memory_maximum_celsius is not None
            else None
        )
        is_memory = memory_margin is not None and margin_celsius >= memory_margin - MARGIN_CELSIUS
        if implied <= die_celsius + MARGIN_CELSIUS or is_memory:
            self._disagreements = 0
            return None
        self._disagreements += 1
        return implied if self._disagreements >= MARGIN_CHECKS else None
