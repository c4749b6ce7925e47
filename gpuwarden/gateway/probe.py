# SPDX-License-Identifier: Apache-2.0
"""Asks a worker whether its card still answers, and waits for what it says."""

import asyncio
import itertools
from collections.abc import Callable

from gpuwarden.gateway.messages import Probed
from gpuwarden.worker.frames import Frame, FrameType

ANSWER_SECONDS = 5.0  # the worker gives its GPU thread 3 (worker/canary.py)


class NoAnswerError(Exception):
    """The worker said nothing: it is of an older version, or gone, or its loop hangs."""


class Probes:
    """What one worker was asked and has not answered yet.

    :param send: sends a frame to it.
    """

    def __init__(self, send: Callable[[Frame], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Probed]] = {}

    async def ask(self) -> Probed:
        """What the worker answers. Raises NoAnswerError."""
        number = next(self._numbers)
        answer: asyncio.Future[Probed] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._send(Frame(FrameType.PROBE, number))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise NoAnswerError(f"no answer within {ANSWER_SECONDS:g} s") from None
        finally:
            del self._asked[number]

    def answered(self, frame: Frame, probed: Probed) -> None:
        """The worker has answered; nobody may be waiting for it any more."""
        answer = self._asked.get(frame.request)
        if answer is not None and not answer.done():
            answer.set_result(probed)

    def lost(self) -> None:
        """The connection is gone."""
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(NoAnswerError("the connection ended"))
