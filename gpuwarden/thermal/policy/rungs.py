# SPDX-License-Identifier: Apache-2.0
"""What is moved to draw less or more, in which order. Pure.

Power limit, then SM clock, then batches, then the share of time with work: each rung is moved only
when those before it have no authority left, and released before they are.
"""

from dataclasses import dataclass

from gpuwarden.thermal.decision import FULL_DUTY, Authority

CLOCK_PER_WATT = 0.6  # share of clock per share of power: watts go with clock to the 1.7 (H200)
CLOCK_STEP_MHZ = 15  # of every card since Volta
LOWEST_DUTY = 0.05
SETTLE_SECONDS = 10.0  # between two steps of the batch limit: a smaller batch tells only then


@dataclass(slots=True)
class Rungs:
    """Where each actuator stands; a None of ``clock_mhz`` and ``batch`` is: not limited.

    :ivar limit_watts: unrounded; the original where it isn't limited; None: can't be set.
    """

    authority: Authority
    limit_watts: float | None = None
    clock_mhz: float | None = None
    batch: int | None = None
    duty: float = FULL_DUTY
    batch_moved_at: float = float("-inf")

    def adopt(self, authority: Authority) -> None:
        """Go on with other means: what can't be moved any more is let go, the ceiling obeyed."""
        was_original = self.limit_watts is None or not self.limits_power
        self.authority = authority
        if authority.original_watts is None or was_original:
            self.limit_watts = authority.original_watts
        elif self.limit_watts is not None:
            self.limit_watts = max(
                min(authority.minimum_watts, authority.original_watts),
                min(self.limit_watts, authority.original_watts),
            )
        clocks = authority.sm_clocks_mhz
        if clocks is None or (self.clock_mhz is not None and self.clock_mhz >= clocks[1]):
            self.clock_mhz = None
        elif self.clock_mhz is not None:
            self.clock_mhz = max(float(clocks[0]), self.clock_mhz)
        if self.batch is not None and self.batch >= authority.max_batch:
            self.batch = None

    def take(self, watts: float) -> None:
        """Put the limit where it shall go on from; what lies below its range is left to clocks."""
        if self.authority.original_watts is not None:
            within = max(self.authority.minimum_watts, watts)
            self.limit_watts = min(self.authority.original_watts, within)

    def cap(self, ceiling_watts: float) -> None:
        """Lower the limit to a ceiling, as far as it goes."""
        if self.limit_watts is not None and ceiling_watts < self.limit_watts:
            self.take(ceiling_watts)

    def cap_clock(self, power_share: float, clock_mhz: float | None) -> None:
        """Lower the clock so that the card draws that share of what it draws now, if it can."""
        clocks = self.authority.sm_clocks_mhz
        if clocks is None:
            return
        target = (clock_mhz or float(clocks[1])) * power_share**CLOCK_PER_WATT
        held = float(clocks[1]) if self.clock_mhz is None else self.clock_mhz
        self.clock_mhz = max(float(clocks[0]), min(held, target))

    def keep_near(
        self, limit_watts: float | None, watts: float, clock_mhz: int | None, mhz: float
    ) -> None:
        """Don't run further ahead of what is written than one change that is worth a write."""
        if self.limit_watts is not None and limit_watts is not None and self.limits_power:
            self.limit_watts = within(self.limit_watts, limit_watts, watts)
        if self.clock_mhz is not None and clock_mhz is not None:
            self.clock_mhz = within(self.clock_mhz, clock_mhz, mhz)

    @property
    def clock_to_lock(self) -> int | None:
        """The clock in whole steps, rounded down."""
        if self.clock_mhz is None or self.authority.sm_clocks_mhz is None:
            return None
        whole = int(self.clock_mhz) // CLOCK_STEP_MHZ * CLOCK_STEP_MHZ
        return max(self.authority.sm_clocks_mhz[0], whole)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing is held back."""
        return not self.limits_card and self.batch is None and self.duty >= FULL_DUTY

    @property
    def limits_card(self) -> bool:
        """Whether the card itself is held back."""
        return self.clock_mhz is not None or self.limits_power

    @property
    def limits_work(self) -> bool:
        """Whether anything but the power limit is held back."""
        return self.clock_mhz is not None or self.batch is not None or self.duty < FULL_DUTY

    @property
    def limits_power(self) -> bool:
        """Whether the power limit is below the original."""
        original = self.authority.original_watts
        if self.limit_watts is None or original is None:
            return False
        return self.limit_watts < original

    def lower(self, watts: float, drawn_watts: float, clock_mhz: float | None, now: float) -> None:
        """Take ``watts`` off what the card draws.

        :param drawn_watts: what it draws now.
        :param clock_mhz: what its SMs run at now.
        """
        if self.limit_watts is not None and self.limit_watts > self.authority.minimum_watts:
            # From what is drawn: a limit above that would not bind.
            start = min(self.limit_watts, max(drawn_watts, self.authority.minimum_watts))
            self.limit_watts = max(self.authority.minimum_watts, start - watts)
            return
        share = min(0.5, watts / max(drawn_watts, 1.0))
        if self._lower_clock(share, clock_mhz):
            return
        if self._lower_batch(now):
            return
        self.duty = max(LOWEST_DUTY, self.duty * (1.0 - share))

    def rise(self, watts: float, drawn_watts: float, now: float) -> None:
        """Let the card draw ``watts`` more; the last rung that was taken is released first."""
        share = min(0.5, watts / max(drawn_watts, 1.0))
        if self.duty < FULL_DUTY:
            self.duty = min(FULL_DUTY, self.duty * (1.0 + share))
        elif self.batch is not None:
            self._rise_batch(now)
        elif self.clock_mhz is not None:
            assert self.authority.sm_clocks_mhz is not None
            self.clock_mhz *= 1.0 + CLOCK_PER_WATT * share
            if self.clock_mhz >= self.authority.sm_clocks_mhz[1]:
                self.clock_mhz = None
        elif self.limit_watts is not None:
            assert self.authority.original_watts is not None
            self.limit_watts = min(self.authority.original_watts, self.limit_watts + watts)

    def free_clock(self) -> None:
        """Unlock the clock: the power limit holds the card lower anyway."""
        self.clock_mhz = None

    def _lower_clock(self, share: float, clock_mhz: float | None) -> bool:
        clocks = self.authority.sm_clocks_mhz
        if clocks is None:
            return False
        lowest, highest = clocks
        held = float(highest) if self.clock_mhz is None else self.clock_mhz
        # From what it runs at: a lock above that, under a power limit say, would not bind.
        self.clock_mhz = min(held, clock_mhz or held)
        if self.clock_mhz <= lowest:
            return False
        self.clock_mhz = max(float(lowest), self.clock_mhz * (1.0 - CLOCK_PER_WATT * share))
        return True

    def _lower_batch(self, now: float) -> bool:
        size = self.authority.max_batch if self.batch is None else self.batch
        if size <= 1:
            return False
        if now - self.batch_moved_at >= SETTLE_SECONDS:
            self.batch, self.batch_moved_at = size // 2, now
        return True

    def _rise_batch(self, now: float) -> None:
        if self.batch is None or now - self.batch_moved_at < SETTLE_SECONDS:
            return
        doubled, self.batch_moved_at = self.batch * 2, now
        self.batch = None if doubled >= self.authority.max_batch else doubled


def within(value: float, middle: float, span: float) -> float:
    """``value``, or the end of ``middle`` +- ``span`` that is nearest to it."""
    return min(middle + span, max(middle - span, value))
