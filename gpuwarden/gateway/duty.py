# SPDX-License-Identifier: Apache-2.0
"""How much of the time a card works, held to a share of it: rest in proportion to work done. Pure.

A card earns ``duty`` seconds of work with each second that passes and spends one with each second
that it works; while it owes any, it is given nothing. So at a duty of one half a batch of three
seconds is followed by three seconds of rest, one of twenty milliseconds by twenty; the share is
right over any longer time, whatever the batches, and no period has to be waited out.

What counts is the time in which the GPU ran, as the worker measured it: while a card waits for
its next image to be decoded it rests. Times are seconds of the caller's clock.
"""

# A card that had nothing to do has saved up a burst of twice this at most, at half duty. Well
# below the ten seconds whose mean the duty is to hold (the die itself follows every burst).
PERIOD_SECONDS = 2.0
LONGEST_WORK_SECONDS = 30.0  # a worker that hangs longer is stuck, not working: no more is charged
NOTHING_OWED = -1e-6  # a timer's rounding is no debt


class DutyMeter:
    """One card's account."""

    def __init__(self) -> None:
        self.duty = 1.0
        self._balance = 0.0
        self._at = 0.0
        self._running = 0
        self._shared_until = 0.0
        self._batch_seconds: float | None = None

    def set_duty(self, duty: float, now: float) -> None:
        """Hold the card to another share of the time (over 0, at most 1) from now on."""
        self._advance(now)
        self.duty = duty
        self._balance = 0.0 if duty >= 1 else min(self._balance, self._most)

    def set_running(self, batches: int, now: float) -> None:
        """So many batches run on the card from now on; those that wait behind one don't count."""
        self._advance(now)
        self._running = batches

    def batch_ended(self, started: float, gpu_seconds: float | None, now: float) -> None:
        """A batch that was first in its worker since ``started`` is answered.

        :param gpu_seconds: how long it ran, measured by the worker; None: all that time.
        """
        self._advance(now)
        if gpu_seconds is None:
            return
        self._batch_seconds = gpu_seconds
        # The card rested before, unless another batch ran on it meanwhile.
        rested = now - gpu_seconds - max(started, self._shared_until)
        if rested > 0:
            most = self._most - (1 - self.duty) * gpu_seconds
            self._balance = min(self._balance + rested, most)

    def permits(self, behind: int, now: float) -> bool:
        """Whether the card may be given a batch.

        :param behind: batches in the same worker that run before it: it may be given ahead only if
            the card will not have to rest when they are done.
        """
        if self.duty >= 1:
            return True
        self._advance(now)
        if behind and self._batch_seconds is None:
            return False
        ahead = (self._batch_seconds or 0.0) * behind
        return self._balance - (1 - self.duty) * ahead >= NOTHING_OWED

    def rested_at(self) -> float | None:
        """When the rest that it takes now is over; None while it works or need not rest."""
        if self._running or self.duty >= 1 or self._balance >= NOTHING_OWED:
            return None
        return self._at - self._balance / self.duty

    @property
    def _most(self) -> float:
        return PERIOD_SECONDS * self.duty * (1 - self.duty)

    def _advance(self, now: float) -> None:
        seconds, self._at = now - self._at, now
        if self.duty >= 1 and self._running <= 1:
            return  # it owes nothing, and saves nothing up
        if not self._running:
            self._balance = min(self._most, self._balance + self.duty * seconds)
            return
        if self._running > 1:
            self._shared_until = now
        least = -LONGEST_WORK_SECONDS * (1 - self.duty)
        self._balance = max(self._balance - (1 - self.duty) * seconds, min(least, self._balance))
