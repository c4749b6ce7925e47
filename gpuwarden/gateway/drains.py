# SPDX-License-Identifier: Apache-2.0
"""Workers that get no new work, by the guard's order: who they are, and who waits for their end."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from gpuwarden.control.requests import DrainAnswer, DrainRequest, UndrainRequest
from gpuwarden.control.socket import ControlError, Document
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import Seat, is_waiting

Asked = TypeVar("Asked", DrainRequest, UndrainRequest)


class Drains:
    """The orders ``drain`` and ``undrain`` of the control socket.

    An order is for a number: it holds for whatever connects under it, until it is taken back.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._waiting: set[asyncio.Event] = set()

    async def drain(self, request: Document) -> Document:
        """Give a worker nothing new; answer when it is done with what it has, or time is over."""
        asked = _checked(DrainRequest, request)
        self._dispatcher.drain(asked.number, True)
        await self._wait(lambda: not self._unanswered(asked.number), asked.seconds)
        return DrainAnswer(unanswered=self._unanswered(asked.number)).model_dump()

    def undrain(self, request: Document) -> Document:
        """Give a worker work again."""
        self._dispatcher.drain(_checked(UndrainRequest, request).number, False)
        return DrainAnswer(unanswered=0).model_dump()

    def changed(self) -> None:
        """Something has come to an end, maybe what somebody waits for."""
        for event in self._waiting:
            event.set()

    def _unanswered(self, number: int) -> int:
        """Accepted requests that only this worker can answer."""
        queue = self._dispatcher.queue
        seats = [link.seat for link in self._dispatcher.links.values() if link.number == number]
        return sum(seat.unanswered for seat in seats) + left_to(queue, seats)

    async def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    event.clear()
                    await event.wait()
        except TimeoutError:
            return  # the answer says how much is left
        finally:
            self._waiting.discard(event)


def left_to(queue: RequestQueue, seats: list[Seat]) -> int:
    """Accepted requests that wait for nobody but these drained workers."""
    if any(seat in seats for seat in queue.cards.last_resort()):
        return queue.depth
    models = {seat.model for seat in seats if seat in queue.cards.last_resort(seat.model)}
    return sum(one.model in models and is_waiting(one) for one in queue.requests.values())


def _checked(model: type[Asked], request: Document) -> Asked:
    try:
        return model.model_validate(request)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ControlError("InvalidArgument", wrong) from None
