# SPDX-License-Identifier: Apache-2.0
"""Waits until jobs have ended, asking for as little as possible: a question each minute and job."""

import time
from collections.abc import Callable, Sequence

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import Door, Reply
from gpuwarden.cli.submission import Submitted

WAIT_SECONDS = 60  # the service answers as soon as the job has ended
PAUSE_SECONDS = 0.5
AWAY_SECONDS = 60.0  # a restart of the service is waited out


class Waiting:
    """One wait; jobs end about in the order of their submission, and are asked for in it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._connection = door.connect()

    def run(self, jobs: Sequence[Submitted], step: Callable[[Submitted], None]) -> None:
        """Until all have ended; ``step`` is called for each.

        :raises CommandError: nobody answers any more, or nobody who has the jobs (3).
        """
        for one in jobs:
            while True:
                reply = self._ask(f"/v1/jobs/{one.id}?wait={WAIT_SECONDS}")
                if reply.status >= 400:
                    one.problem = reply.message
                    one.job = {
                        "status": "gone",
                        "error": {"type": "gone", "message": reply.message},
                    }
                    break
                one.job = reply.document
                if one.job["progress"]["is_finished"]:
                    break
            step(one)

    def _ask(self, path: str) -> Reply:
        end: float | None = None
        while True:
            try:
                reply = self._connection.ask("GET", path)
                if reply.status != 503:
                    return reply
                problem = CommandError(f"{self._door.place}: {reply.message}", Exit.UNREACHABLE)
            except CommandError as error:
                if error.code is not Exit.UNREACHABLE:
                    raise
                problem = error
                self._connection.close()
            end = end or time.monotonic() + AWAY_SECONDS
            if time.monotonic() > end:
                raise problem
            time.sleep(PAUSE_SECONDS)
