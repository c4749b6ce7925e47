# SPDX-License-Identifier: Apache-2.0
"""A batch that the GPU thread has, whose answers leave as soon as they are made.

Answers that are plain go out from the GPU thread itself, and after a quick batch nobody wakes the
loop: it hears of it when it has something to give, or when it shows its state. One batch more lies
ready there, so that the GPU doesn't wait for the loop either. The loop can take it back until it
begins: its callers may leave, and the card may grow hot. Whatever is unusual about a batch, or
about its connection, is left to the loop.
"""

import time
from typing import Callable, List, Optional, Sequence

from gpuwarden.worker.answers import fits, pack
from gpuwarden.worker.held import Held
from gpuwarden.worker.outputs import Answer, Small

GIVEN_BATCHES = 2  # one runs, one lies ready
Answers = Optional[List[Answer]]  # None: it did not run
QUICK_SECONDS = 0.005  # after a longer batch the loop is woken: that costs nothing beside it


class Running:
    """A batch of one connection, from the moment it is given to the GPU thread.

    :param before: the batch that it lies ready behind, if it does.
    :param is_plain: as below, where that is known.
    :ivar serials: the worker's own numbers of its requests.
    :ivar is_plain: whether its answers go to their callers as they are: that gateway takes them so.
    :ivar has_left: whether all its answers have been sent.
    :ivar is_settled: whether the loop has dealt with its answers.
    """

    def __init__(
        self,
        serials: List[int],
        jobs: Sequence[Held],
        before: "Optional[Running]" = None,
        *,
        is_plain: Optional[bool] = None,
    ) -> None:
        self.serials = serials
        self.jobs = jobs
        self.session = jobs[0].session
        if is_plain is None:
            of_each = [job.is_plain for job in jobs]
            is_plain = self.session.takes_answers and False not in of_each
        self.is_plain = is_plain
        self.seconds = 0.0
        self.has_left = self.is_settled = False
        self._before = before
        self._claims = [True]  # one: whoever takes it has the batch
        self._endings = [True]  # the same of what follows on its end
        self._started = 0.0

    def begin(self) -> bool:
        """Whether it runs now; else the loop has it (GPU thread).

        Not while answers before it may still be lost with this process: their requests would be
        suspected of what this batch does. Not where a request's time is over: the loop says so.
        """
        if not self.take():
            return False
        before, self._before = self._before, None
        if before is not None:  # it has waited
            if not (before.has_left or before.is_settled):
                return False
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if any(0 < job.deadline_nanoseconds < now for job in self.jobs):
                return False
        self._started = time.monotonic()
        return True

    def take(self) -> bool:
        """Take it, from either thread: only who is first gets it."""
        return _is_first(self._claims)

    def take_end(self) -> bool:
        """Take on what follows on its end, from either thread: only who is first has to."""
        return _is_first(self._endings)

    @property
    def may_wait(self) -> bool:
        """Whether the loop has nothing to do for it but to count."""
        return self.has_left and self.seconds < QUICK_SECONDS

    def leave(self, answers: List[Answer]) -> None:
        """Send the answers if they are all plain (GPU thread)."""
        self.seconds = time.monotonic() - self._started
        channel = self.session.channel
        if not self.is_plain or channel is None:
            return
        plain = [
            (job.frame, answer.json)
            for job, answer in zip(self.jobs, answers)
            if isinstance(answer, Small)
        ]
        if len(plain) == len(self.jobs) and fits(plain):
            self.has_left = channel.send_from_thread(pack(plain, self.seconds))
        if self.has_left:
            for job in self.jobs:
                job.prepared = None  # it is large, and the loop may look a second later


def _is_first(claims: List[bool]) -> bool:
    """Whether the one claim that there is was still there; from any thread."""
    try:
        return claims.pop()
    except IndexError:
        return False


class Given:
    """The batches that the GPU thread has: one that runs, and one that lies ready.

    :ivar catch_up: has the loop hear what the thread has done.
    :ivar pass_on: has it call a function, in its turn among what it hears (GPU thread).
    """

    def __init__(self) -> None:
        self._batches: List[Running] = []
        self.catch_up: Callable[[], None] = lambda: None
        self.pass_on: Callable[..., None] = lambda function, *arguments: function(*arguments)

    def __len__(self) -> int:
        return len(self._batches)

    def takes_another(self) -> bool:
        """Whether it is given one more: only behind one whose answers leave there."""
        if self._batches:
            self.catch_up()
        given = self._batches
        return not given or (len(given) < GIVEN_BATCHES and given[0].is_plain)

    def add(self, serials: List[int], jobs: Sequence[Held]) -> Running:
        """One more."""
        running = Running(serials, jobs, self._batches[-1] if self._batches else None)
        self._batches.append(running)
        return running

    def adopt(self, running: Running) -> None:
        """One that runs already."""
        self._batches.append(running)

    def remove(self, running: Running) -> bool:
        """The loop has it; whether it was still there."""
        if running not in self._batches:
            return False
        running.is_settled = True
        self._batches.remove(running)
        return True

    def recall(self) -> List[Running]:
        """Take back what has not begun, the last first."""
        recalled: List[Running] = []
        while self._batches and self._batches[-1].take():
            recalled.append(self._batches[-1])
            self.remove(self._batches[-1])
        return recalled
