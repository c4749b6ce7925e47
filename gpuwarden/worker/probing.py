# SPDX-License-Identifier: Apache-2.0
"""A worker's answers to PROBE: whether its card still does what it is asked."""

import asyncio
from typing import Any, Callable, Coroutine, Optional

from gpuwarden.worker import canary
from gpuwarden.worker.engine import Engine
from gpuwarden.worker.frames import Frame
from gpuwarden.worker.gpu import GpuThread
from gpuwarden.worker.link import Session
from gpuwarden.worker.loading import Loader
from gpuwarden.worker.waiting import within

Probed = Callable[[Session, Frame, str, str], None]
Start = Callable[[Coroutine[Any, Any, None]], Any]


class Probing:
    """Asks the card, one question at a time.

    :param probed: sends the answer.
    :param start: runs a coroutine beside the caller.
    :ivar engine: None until it is loaded.
    """

    def __init__(self, gpu: GpuThread, loader: Loader, probed: Probed, start: Start) -> None:
        self.engine: Optional[Engine] = None
        self._gpu = gpu
        self._loader = loader
        self._probed = probed
        self._start = start
        self._is_probed = False

    def on_asked(self, session: Session, frame: Frame) -> None:
        """The gateway asks."""
        if self.engine is None or self._is_probed:
            self._probed(session, frame, canary.BUSY, "it loads, or is asked already")
        else:
            self._start(self._probe(session, frame, self.engine))

    async def _probe(self, session: Session, frame: Frame, engine: Engine) -> None:
        self._is_probed = True
        try:
            outcome, detail = await self._canary(engine)
        except asyncio.TimeoutError:
            outcome, detail = canary.BUSY, f"no answer within {canary.ANSWER_SECONDS:g} s"
        finally:
            self._is_probed = False
        self._probed(session, frame, outcome, detail)

    async def _canary(self, engine: Engine) -> canary.Outcome:
        context = self._loader.context
        if context:
            lost = (canary.LOST, "the simulator ended the context")
            return lost if context.lost else (canary.ANSWERED, "")
        return await within(canary.ANSWER_SECONDS, self._gpu.run(self._check, engine))

    def _check(self, engine: Engine) -> canary.Outcome:
        """On the GPU thread. One that hangs there is as stuck as a batch, and is seen to be."""
        self._gpu.mark()
        return canary.check(engine)
