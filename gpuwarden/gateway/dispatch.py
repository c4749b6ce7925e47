# SPDX-License-Identifier: Apache-2.0
"""Joins the queue to the workers' connections, the clock and those who wait for an answer."""

import asyncio
import logging
from collections.abc import Callable

from gpuwarden.control.snapshot import boottime_nanoseconds
from gpuwarden.gateway.alarm import Alarm
from gpuwarden.gateway.body import Body, Room
from gpuwarden.gateway.buffers import Buffer, BufferPool
from gpuwarden.gateway.counting import count
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.givingup import GivingUp
from gpuwarden.gateway.job import Answer, Job
from gpuwarden.gateway.kinds import describe
from gpuwarden.gateway.lending import Lending
from gpuwarden.gateway.link import Said, Sent, Tally, WorkerLink
from gpuwarden.gateway.messages import Figures, Hello, Piece, Told, Wish
from gpuwarden.gateway.metrics import Metrics
from gpuwarden.gateway.notes import Notes
from gpuwarden.gateway.pause import Pause
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.refusals import Refusals
from gpuwarden.gateway.results import Parts, Results
from gpuwarden.gateway.setaside import SetAside
from gpuwarden.gateway.settings import GatewaySettings, batch_rules, limits_of
from gpuwarden.gateway.statistics import Statistics
from gpuwarden.gateway.work import (
    Action,
    CardLimits,
    Dispatch,
    End,
    Ending,
    Phase,
    Refused,
    Repeat,
    Request,
    Withdraw,
)
from gpuwarden.worker.frames import Frame, FrameType

log = logging.getLogger(__name__)

NO_NUMBER = 0  # the queue's own begin with 1


class Dispatcher:
    """The accepted requests and the connected workers.

    :param on_change: called whenever something that is published may have changed.
    :ivar on_card: called before the first request goes to a card, so that its heat is looked at.
    :ivar set_aside: what has killed workers and is not tried again for a while.
    :ivar pause: while it runs, nothing new is accepted.
    :ivar on_repeat: called with a durable job that a worker may have begun: to note that, then
        have it ``start_again``.
    :ivar on_handover: called with the result of a durable job that a former front door gave out.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        pool: BufferPool,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.settings = settings
        self.statistics = Statistics()
        self.metrics = Metrics()
        self.pool = pool
        self.lending = Lending(settings.results_bytes)
        self.links: dict[int, WorkerLink] = {}
        self._tallies: dict[int, Tally] = {}
        self.drained: set[int] = set()
        self.queue = RequestQueue(limits_of(settings), self._loop.time())
        self.queue.batching.rules = batch_rules(settings)
        self.set_aside = SetAside()
        self._giving_up = GivingUp(self.set_aside, pool, lambda: list(self._jobs.values()))
        self._refusals = Refusals(lambda: self.settings, self.statistics, self.queue)
        self._jobs: dict[int, Job] = {}
        self._on_change = on_change
        self.on_card: Callable[[int], None] = lambda card: None
        self.pause: Pause | None = None
        self.on_figures: Callable[[WorkerLink, Figures], None] = lambda *what: None
        self.on_repeat: Callable[[Job], None] = self.start_again
        self.on_handover: Callable[[str, WorkerLink, Told, bytes], None] = lambda *what: None
        parts = Parts(self.queue, self._jobs, self.lending, pool, self.statistics, self._carry_out)
        self._results = Results(parts)
        self._alarm = Alarm(self._expire)
        self._joined: list[Request] = []  # in this turn of the loop
        self._notes = Notes(self._note)
        pool.on_retired = self._retire

    # --- callers

    def apply(self, settings: GatewaySettings) -> None:
        """Go by other limits from now on; what was accepted keeps its own."""
        self.settings = settings
        self.queue.limits = limits_of(settings)
        self.queue.batching.rules = batch_rules(settings)
        self.pool.limit_bytes = settings.pool_bytes
        self.lending.pool.limit_bytes = settings.results_bytes

    def admit(self, length: int) -> Job:
        """Accept a request by its headers. Raises ApiError 429 or 503."""
        now = self._loop.time()
        if self.pause is not None:
            self.check_open()
        try:
            if self._joined and self.queue.depth >= self.queue.limits.count:
                self._serve()  # it may be full of those for whom there is a worker
            self._refusals.foresee(len(self._joined), now)
            request = self.queue.admit(length, now)
        except Refused as refused:
            raise self._refusals.refusal(refused.reason) from None
        room = Room(
            self.pool,
            self.settings.upload_limit_bytes,
            lambda larger: self._resize(request, larger),
        )
        try:
            room.reserve(length)
        except ApiError as error:
            self._carry_out(self.queue.cancel(request, now))
            raise self._refusals.later(error) from None
        job = Job(request, now, room)
        self._jobs[request.number] = job
        self.statistics.accepted += 1
        self._change()
        return job

    def admit_repeat(self, length: int) -> Job:
        """Take in what repeats an accepted request, to compare: it has no place in the queue.

        :raises ApiError: 429 where no buffer is free.
        """
        now = self._loop.time()
        deadline = now + self.settings.request_timeout_seconds
        room = Room(self.pool, self.settings.upload_limit_bytes, lambda size: None)
        try:
            room.reserve(length)
        except ApiError as error:
            raise self._refusals.later(error) from None
        self.statistics.accepted += 1
        self._change()
        return Job(Request(NO_NUMBER, length, deadline, phase=Phase.ENDED), now, room)

    def admit_job(self, length: int, priority: int, deaths: int) -> Job:
        """Accept a durable job whose body is on disk. Raises ApiError where no buffer is free."""
        now = self._loop.time()
        request = self.queue.admit_background(length, priority, deaths, now)
        job = Job(
            request, now, Room(self.pool, self.settings.upload_limit_bytes, lambda size: None)
        )
        try:
            job.room.reserve(length)
        except ApiError:
            self._carry_out(self.queue.cancel(request, now))
            raise
        self._jobs[request.number] = job
        return job

    def hold(self, job: Job, buffer: Buffer) -> None:
        """Keep another's buffer until this request ends."""
        self.pool.hold(buffer)
        job.held.append(buffer)

    def start(self, job: Job, body: Body) -> None:
        """Have a worker answer it: see its pieces and its outcome."""
        job.body = body
        describe(job.request, body, self.queue.seats.values())
        job.queued_at = self._loop.time()
        self.queue.join(job.request, job.queued_at)
        self._joined.append(job.request)
        if len(self._jobs) == 1:
            self._serve()  # it is alone: nobody is worth waiting for
        self._change()

    def start_again(self, job: Job) -> None:
        """Have another worker answer it, unless nobody wants that any more."""
        if job.body is not None and not job.request.has_ended:
            self.start(job, job.body)

    async def execute(self, job: Job, body: Body) -> Answer:
        """Have a worker answer it. Raises ApiError if that can't be had."""
        self.start(job, body)
        return await job.outcome

    def check_open(self) -> None:
        """Refuse everything new during a pause. Raises ApiError 503."""
        if pause := self.running_pause():
            raise pause.refusal(boottime_nanoseconds())

    def running_pause(self) -> Pause | None:
        """The pause that has not ended."""
        if self.pause is None or not self.pause.runs(boottime_nanoseconds()):
            return None
        return self.pause

    def reject(self) -> None:
        """A request was refused by its headers."""
        self.statistics.rejected += 1
        self._change()

    def withdraw(self, job: Job) -> None:
        """It has no need of its place and its memory any more."""
        self._jobs.pop(job.request.number, None)
        if not job.request.has_ended:
            self._carry_out(self.queue.cancel(job.request, self._loop.time()))
        job.room.free()
        job.pieces.close()
        job.body = None  # its answer may be kept for a key: the image is not
        for buffer in job.held:
            self.pool.release(buffer)
        job.held.clear()

    def leave(self, job: Job, error: BaseException | None) -> None:
        """The caller has its answer or its error, or doesn't wait any longer."""
        self.withdraw(job)
        count(job, error, self._loop.time(), self.statistics, self.metrics)
        self._change()

    def _resize(self, request: Request, length: int) -> None:
        try:
            self.queue.resize(request, length)
        except Refused as refused:
            raise self._refusals.refusal(refused.reason) from None

    # --- workers

    @property
    def results_bytes(self) -> int:
        """The largest result that a worker may hand in."""
        return self.lending.pool.limit_bytes

    def connected(self, link: WorkerLink, hello: Hello) -> None:
        """A recognised worker has introduced itself."""
        self.on_card(link.seat.card)
        self.links[link.key] = link
        link.tally = self._tallies.setdefault(link.number, link.tally)
        link.seat.drained = link.number in self.drained
        self.queue.attach(link.seat)
        link.limit(*self.queue.cards.told(link.seat))
        self.state_changed(link, hello.state)

    def state_changed(self, link: WorkerLink, state: str) -> None:
        """A worker loads, is ready or drains."""
        self._carry_out(
            self.queue.set_state(
                link.seat,
                ready=state == "ready",
                draining=state == "draining",
                now=self._loop.time(),
            )
        )

    def drain(self, number: int, drained: bool) -> None:
        """A worker, in this life and the next ones, gets no new work, or gets work again."""
        (self.drained.add if drained else self.drained.discard)(number)
        for link in list(self.links.values()):
            if link.number == number:
                self._carry_out(self.queue.drain(link.seat, drained, self._loop.time()))
        self._change()

    def limit(self, card: int, limits: CardLimits) -> None:
        """A card has grown hotter or cooler."""
        actions = self.queue.limit(card, limits, self._loop.time())
        for link in self.links.values():
            if link.seat.card == card:
                link.limit(*self.queue.cards.told(link.seat))
        self._carry_out(actions)

    def batch_size(self, link: WorkerLink) -> int:
        """Requests that a worker may run together now."""
        return self.queue.cards[link.seat.card].batch_size(link.seat)

    def granted(self, link: WorkerLink, credit: int) -> None:
        """A worker takes that many more requests."""
        self._carry_out(self.queue.grant(link.seat, credit, self._loop.time()))

    def answered(self, link: WorkerLink, said: list[Said]) -> None:
        """A worker has sent RESULTs together."""
        handed_over = [one for one in said if one[1].ticket is not None]
        for frame, result in handed_over:
            self.on_handover(result.ticket or "", link, result, frame.body)
        own = [one for one in said if one[1].ticket is None] if handed_over else said
        self._results.take(link, own, self._loop.time())

    def asked(self, link: WorkerLink, frame: Frame, wish: Wish) -> None:
        """A worker needs room for a large result. Raises MessageError."""
        self.lending.ask(link, frame, wish)

    def told(self, link: WorkerLink, piece: Piece) -> None:
        """A worker has sent a piece of an answer."""
        self._results.piece(link, piece, self._loop.time())

    def joins(self, link: WorkerLink, frame: Frame, joining: bool) -> None:
        """A worker takes a request into a slot, or has done so."""
        self.queue.joins(link.seat, frame.request, frame.lease, joining, self._loop.time())
        self._change()

    def lost(self, link: WorkerLink) -> None:
        """A worker's connection is gone: its requests go back to the head of the queue."""
        if self.links.pop(link.key, None) is None:
            return
        unanswered = link.seat.outstanding
        if unanswered:
            link.tally.failures += 1
            link.tally.last_error = ""  # of a life that is over: how it ended is systemd's to tell
        log.log(
            logging.WARNING if unanswered else logging.INFO,
            "worker %d (pid %d) is gone with %d requests unanswered",
            link.number,
            link.peer.pid,
            unanswered,
            extra={"fields": {"WORKER": str(link.number)}},
        )
        actions = self.queue.detach(link.seat, self._loop.time())
        self.pool.condemn(link.mapped)
        for lease in list(link.leases):
            self._results.release(link, lease)
        self._carry_out(actions)

    def changed(self) -> None:
        """Something else that is published has changed."""
        self._change()

    def close(self) -> None:
        """Hang up on all workers."""
        self._alarm.cancel()
        self._notes.close()
        for link in list(self.links.values()):
            link.close()

    # --- the inside

    def _carry_out(self, actions: list[Action]) -> None:
        self._perform(actions)
        self._change()

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Dispatch():
                    self._send_batch(action)
                case Withdraw(seat, request, lease):
                    self.links[seat].send(Frame(FrameType.CANCEL, request, lease))
                case Repeat(request):
                    if (repeated := self._jobs.get(request.number)) is not None:
                        self.on_repeat(repeated)
                case End(request, ending):
                    job = self._jobs.get(request.number)
                    if job is not None and ending is Ending.WORKER_CRASHED:
                        self._giving_up.begin(job, self._refusals.ending(ending))
                    elif job is not None and not job.is_over:
                        job.fail(self._refusals.ending(ending))

    def _change(self) -> None:
        """Something has changed: whatever follows is done once for many changes."""
        queue = self.queue
        self._notes.change(somebody_waits=queue.waiting > 0 or queue.background > 0)

    def _note(self) -> None:
        self._serve()
        self._set_timer()
        self._on_change()

    def _serve(self) -> None:
        """Give workers what has joined in this turn of the loop."""
        joined, self._joined = self._joined, []
        if joined:
            self._perform(self.queue.serve(joined, self._loop.time()))

    def _send_batch(self, dispatch: Dispatch) -> None:
        link = self.links[dispatch.seat]
        now, boottime = self._loop.time(), boottime_nanoseconds()
        jobs: list[Sent] = []
        for request, lease in dispatch.jobs:
            body = self._jobs[request.number].body
            if body is None:
                raise RuntimeError(f"request {request.number} was queued without its body")
            for buffer in body.buffers():
                self.pool.hold(buffer)
            deadline = 0  # none
            if not request.background:
                deadline = boottime + int(max(0.0, request.deadline - now) * 1e9)
            jobs.append((request.number, lease, body, deadline))
        link.send_batch(dispatch.batch, jobs)
        self.metrics.dispatched(len(jobs))

    def _retire(self, buffer: Buffer) -> None:
        for link in self.links.values():
            link.retire(buffer.number)

    def _set_timer(self) -> None:
        self._alarm.set(self.queue.next_timer(self._alarm.when))

    def _expire(self) -> None:
        self._carry_out(self.queue.expire(self._loop.time()))
