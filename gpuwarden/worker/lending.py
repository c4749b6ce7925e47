# SPDX-License-Identifier: Apache-2.0
"""Large results on their way out: asks the gateway for a buffer, fills it, lets go of it.

The data is written through the descriptor and not through a mapping: without a writable mapping
the gateway can seal what it has got, and nobody here can change it any more.
"""

import asyncio
import os
from typing import Dict, List, Optional, Tuple

from gpuwarden.worker.channel import close_all
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.frames import INLINE_LIMIT_BYTES, Frame, FrameType
from gpuwarden.worker.link import Session

STEP_BYTES = 4 << 20  # written without the GIL; between two steps the process may end

Key = Tuple[int, int, int]  # connection, request, lease
Lent = Tuple[Frame, List[int]]


class Borrowed:
    """The results that wait for a buffer, each until the gateway has answered."""

    def __init__(self) -> None:
        self._waiting: Dict[Key, asyncio.Future[Optional[Lent]]] = {}

    async def put(self, session: Session, job: Frame, data: memoryview) -> Optional[Failure]:
        """Have ``data`` in a buffer of the gateway's; why not, where that can't be.

        None as well where nobody waits for it any more: then nobody hears of it either.
        """
        if not session.results_bytes:  # a gateway that lends nothing would never answer
            text = f"the result has {len(data)} bytes, {INLINE_LIMIT_BYTES} is the most"
            return Failure("result_too_large", text)
        if not session.alive() or not session.channel:
            return None
        key = (session.number, job.request, job.lease)
        answered = asyncio.get_running_loop().create_future()
        self._waiting[key] = answered
        wish = Frame(FrameType.BORROW, job.request, job.lease, meta={"length": len(data)})
        session.channel.send(wish)
        lent = await answered
        return None if lent is None else await _fill(lent, data)

    def answered(self, session: Session, frame: Frame, descriptors: List[int]) -> None:
        """The gateway has answered a BORROW; owns the descriptors."""
        waiting = self._waiting.pop((session.number, frame.request, frame.lease), None)
        if waiting is None:
            close_all(descriptors)
        else:
            waiting.set_result((frame, descriptors))

    def forget(self, session: Session, job: Frame) -> None:
        """Nobody wants it any more; nothing happens where it doesn't wait."""
        waiting = self._waiting.pop((session.number, job.request, job.lease), None)
        if waiting is not None:
            waiting.set_result(None)


async def _fill(lent: Lent, data: memoryview) -> Optional[Failure]:
    frame, descriptors = lent
    error = frame.meta.get("error")
    size = frame.meta.get("size")
    if isinstance(error, dict) or len(descriptors) != 1:
        close_all(descriptors)
        told = error if isinstance(error, dict) else {}
        text = str(told.get("message") or "the gateway lent no buffer for the result")
        return Failure(str(told.get("type") or "no_room"), text)
    if not isinstance(size, int) or size < len(data):
        close_all(descriptors)
        return Failure("no_room", f"the gateway lent {size} bytes for {len(data)}")
    loop = asyncio.get_running_loop()
    try:
        await loop.run_in_executor(None, _write, descriptors[0], data)
    except OSError as error:
        return Failure("no_room", f"the result can't be written: {error.strerror}")
    return None


def _write(descriptor: int, data: memoryview) -> None:
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done : done + STEP_BYTES], done)
    finally:
        os.close(descriptor)
