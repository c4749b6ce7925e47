# SPDX-License-Identifier: Apache-2.0
"""Lends workers buffers for large results, and takes them back full, unwanted or from the dead."""

import logging

from gpuwarden.gateway.errors import ApiError, worker_error
from gpuwarden.gateway.job import Answer
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.messages import WHOLE, Content, MessageError, Told, Wish
from gpuwarden.gateway.outputs import Output, OutputPool
from gpuwarden.worker.frames import Frame

log = logging.getLogger(__name__)


class Lending:
    """One buffer a lease at most; whatever ends the lease ends the loan.

    :ivar lent: buffers that were lent so far.
    :ivar refused: wishes that found no room.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.pool = OutputPool(limit_bytes)
        self.lent = 0
        self.refused = 0

    def ask(self, link: WorkerLink, frame: Frame, wish: Wish) -> None:
        """A worker wants room. Raises MessageError where it has some for this lease."""
        if frame.lease in link.loans:
            raise MessageError("a second BORROW for one lease")
        if not link.seat.awaits(frame.request, frame.lease):
            link.refuse(frame, "cancelled", "nobody waits for this result any more")
        elif not self.pool.can_hold(wish.length):
            limit = self.pool.limit_bytes
            text = f"the result has {wish.length} bytes, {limit} is the most"
            link.refuse(frame, "result_too_large", f"{text} ([gateway] results_bytes)")
        else:
            self._lend(link, frame, wish.length)

    def _lend(self, link: WorkerLink, frame: Frame, length: int) -> None:
        try:
            buffer = self.pool.make(length)
        except OSError as error:
            log.error("no buffer of %d bytes for a result can be had: %s", length, error.strerror)
            buffer = None
        if buffer is None:
            self.refused += 1
            text = "no room for another result of this size now ([gateway] results_bytes)"
            link.refuse(frame, "no_room", text)
            return
        self.lent += 1
        link.lend(frame, buffer)

    def answer(self, link: WorkerLink, frame: Frame, result: Told) -> Answer:
        """What a worker has answered, its output the caller's to destroy. Raises ApiError."""
        body = link.leases.get(frame.lease)
        if not result.ok and result.error is not None:
            told, form = result.error, "predict" if body is None else body.form
            raise worker_error(told.type, told.message, told.param, form)
        output = None if result.content is None else self._collect(link, frame, result.content)
        terms = result.terms or WHOLE
        answer = Answer(result.answer or {}, link.model, link.number, terms, output)
        if body is not None and (body.ticket or body.form == "chat"):
            answer.read()
        return answer

    def _collect(self, link: WorkerLink, frame: Frame, content: Content) -> Output:
        output = Output(content.part, content.media_type, content.length)
        if len(frame.body) == content.length:
            output.inline = frame.body
            return output
        buffer = link.loans.get(frame.lease)
        if buffer is None or content.length > buffer.size:
            log.error(
                "worker %d told of %d bytes of a result, and was lent %d",
                link.number,
                content.length,
                0 if buffer is None else buffer.size,
            )
            raise ApiError("engine_error", "the worker told of more than it was lent room for")
        output.buffer = link.loans.pop(frame.lease)
        return output

    @staticmethod
    def end(link: WorkerLink, lease: int) -> None:
        """A lease is over: what is still lent for it is nobody's."""
        buffer = link.loans.pop(lease, None)
        if buffer is not None:
            buffer.destroy()
