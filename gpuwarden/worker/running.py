"""A batch on the GPU, whose answers leave as soon as they are made.

Answers that are plain go out from the GPU thread itself: the gateway has them before this process's
loop has woken up, and its next requests are on their way meanwhile. Whatever is unusual about a
batch, or about its connection, is left to the loop.
"""

import time
from typing import List, Sequence

from gpuwarden.worker.answers import fits, pack
from gpuwarden.worker.held import Held
from gpuwarden.worker.outputs import Answer, Small


class Running:
    """A batch of one connection, from the moment it is given to the GPU thread.

    :ivar serials: the worker's own numbers of its requests.
    :ivar seconds: how long it ran.
    :ivar has_left: whether all its answers have been sent.
    """

    def __init__(self, serials: Sequence[int], jobs: Sequence[Held]) -> None:
        self.serials = serials
        self.jobs = jobs
        self.session = jobs[0].session
        self.seconds = 0.0
        self.has_left = False
        self._started = time.monotonic()

    def leave(self, answers: List[Answer]) -> None:
        """Send the answers if they are all plain (GPU thread)."""
        self.seconds = time.monotonic() - self._started
        channel = self.session.channel
        if not self.session.takes_answers or channel is None:
            return
        plain = [
            (job.frame, answer.json)
            for job, answer in zip(self.jobs, answers)
            if isinstance(answer, Small) and job.is_plain
        ]
        if len(plain) == len(self.jobs) and fits(plain):
            self.has_left = channel.send_from_thread(pack(plain, self.seconds))
