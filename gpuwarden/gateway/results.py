# SPDX-License-Identifier: Apache-2.0
"""Takes what workers answer and gives it to who waits for it."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from gpuwarden.gateway.buffers import BufferPool
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.job import Job
from gpuwarden.gateway.lending import Lending
from gpuwarden.gateway.link import Said, WorkerLink
from gpuwarden.gateway.messages import Piece, Told
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.statistics import Statistics
from gpuwarden.gateway.work import Action, Answered, Verdict
from gpuwarden.systemd.events import Event, tell
from gpuwarden.worker.frames import Frame


class Parts(NamedTuple):
    """What the dispatcher shares; ``carry_out`` does what the queue decides."""

    queue: RequestQueue
    jobs: dict[int, Job]
    lending: Lending
    pool: BufferPool
    statistics: Statistics
    carry_out: Callable[[list[Action]], None]


class Results:
    """Answers by their leases, whole or in pieces."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def take(self, link: WorkerLink, said: list[Said], now: float) -> None:
        """A worker has sent RESULTs together."""
        parts = self._parts
        answers = [answered(*one) for one in said]
        verdicts, ran = parts.queue.settle(link.seat, answers)
        # Where others wait the worker comes first: whoever is answered has time.
        if others_wait := parts.queue.waiting > 0:
            parts.carry_out(parts.queue.go_on(link.seat, ran, now))
        try:
            for (frame, result), verdict in zip(said, verdicts, strict=True):
                self._hand_on(link, frame, result, verdict)
        finally:  # a fault of ours with one answer must not leave the worker without work
            if not others_wait:
                parts.carry_out(parts.queue.go_on(link.seat, ran, now))

    def _hand_on(self, link: WorkerLink, frame: Frame, result: Told, verdict: Verdict) -> None:
        """What was said of one lease, to whoever waits for it."""
        if verdict is Verdict.STALE:
            self._discard(link)
            return
        if verdict is Verdict.DELIVER:
            self._deliver(link, frame, result)
        if result.predict_seconds:
            self._parts.statistics.ran(result.predict_seconds)
        self.release(link, frame.lease)

    def piece(self, link: WorkerLink, piece: Piece, now: float) -> None:
        """A worker has sent a piece of an answer."""
        if not self._parts.queue.piece(link.seat, piece.request, piece.lease, now):
            return  # nobody waits for it any more, or it is of a lease that isn't the worker's
        job = self._parts.jobs.get(piece.request)
        if job is None or job.is_over:
            return
        job.terms, job.model = piece.terms, link.model
        if not job.pieces.add(piece.text):
            job.fail(ApiError("engine_error", "the answer is too long to be kept"))

    def release(self, link: WorkerLink, lease: int) -> None:
        """A lease has ended: what it held is free."""
        if link.loans:
            self._parts.lending.end(link, lease)
        body = link.leases.pop(lease, None)
        for buffer in body.buffers() if body is not None else ():
            self._parts.pool.release(buffer)

    def _discard(self, link: WorkerLink) -> None:
        self._parts.statistics.stale_results += 1
        tell(
            Event.RESULT_DISCARDED,
            f"worker {link.number} answered a lease that it doesn't hold: discarded",
            logging.WARNING,
            WORKER=link.number,
        )

    def _deliver(self, link: WorkerLink, frame: Frame, result: Told) -> None:
        link.tally.requests += 1
        job = self._parts.jobs.get(frame.request)
        wanted = job is not None and not job.is_over
        try:
            answer = self._parts.lending.answer(link, frame, result)
        except ApiError as error:
            if error.status >= 500:
                link.tally.failures += 1
                link.tally.last_error = error.type
            if job is not None and wanted:
                job.fail(error)
            return
        if job is not None and wanted:
            job.succeed(answer)
        elif answer.output is not None:
            answer.output.destroy()


def answered(frame: Frame, result: Told) -> Answered:
    """A RESULT as the queue sees it."""
    error = result.error
    returned = error is not None and error.type == "returned"
    return Answered(frame.request, frame.lease, returned, result.predict_seconds or None)
