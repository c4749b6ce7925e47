# SPDX-License-Identifier: Apache-2.0
"""The order of things: which request goes to which worker, when, and what happens when one dies.

Pure: no clock, no socket, no event loop. Each method takes the time (seconds of any monotonic
clock) and returns what is to be done. Nothing accepted is lost: a request leaves only by its
answer, its caller, its deadline or its own third death.

- **Order**: by acceptance, to the least busy card first (see ``turns``). What a worker gives back
  returns to its old place, that is the head.
- **Classes**: people before the background (see ``lines``). A person who finds every worker taken
  gets the place of a background batch that has not begun.
- **Batches**: greedy. A worker holds one batch that runs and one that is being prepared; while it
  does, requests gather, so batches grow with the load; who waits for company says ``batching``.
- **Heat**: a card's limits bound a batch's size and the share of the time in which it works; while
  it is paused its workers are given nothing, and what they have not begun is taken back.
- **Drained**: a worker that the guard wants idle gets nothing new; the last one finishes what
  people were promised before, and nothing new is accepted from them.
- **Suspects**: whoever may have killed a worker is retried alone in one (see ``blame``).
"""

import itertools
import math

from gpuwarden.gateway.again import Again
from gpuwarden.gateway.batching import Batching
from gpuwarden.gateway.blame import is_given_up, spread_blame
from gpuwarden.gateway.cards import Cards
from gpuwarden.gateway.modellines import ModelLines
from gpuwarden.gateway.timers import Execution, Timers, ending_of
from gpuwarden.gateway.turns import next_turn
from gpuwarden.gateway.work import (
    Action,
    Answered,
    Batch,
    CardLimits,
    Dispatch,
    End,
    Ending,
    Limits,
    Phase,
    Ran,
    Refusal,
    Refused,
    Request,
    Seat,
    Verdict,
    Withdraw,
    is_waiting,
)


class RequestQueue:
    """All accepted requests and all connected workers."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.draining = False
        self.requests: dict[int, Request] = {}
        self.seats: dict[int, Seat] = {}
        self.cards = Cards(self.seats)
        self.batching = Batching()
        self.retried = 0
        self.held_bytes = 0
        self._grace_until = now + limits.grace_seconds
        self._lines = ModelLines(self.seats)
        self._timers = Timers(self.seats)
        self._again = Again()
        self.population = [0] * len(Phase)  # of people's requests
        self.background = 0  # requests that nobody waits for
        self.waiting = 0  # requests that a worker could be given, the background among them
        self._serial = itertools.count(1)

    # --- callers

    def admit(self, body_bytes: int, now: float) -> Request:
        """Accept a request whose body is still to come. Raises Refused."""
        if self.draining:
            raise Refused(Refusal.DRAINING)
        if not self.can_serve(now):
            raise Refused(Refusal.TOO_HOT if self.cards.too_hot else Refusal.NO_WORKER)
        if self.depth >= self.limits.count:
            raise Refused(Refusal.QUEUE_FULL)
        if self.held_bytes + body_bytes > self.limits.total_bytes:
            raise Refused(Refusal.BYTES_FULL)
        request = Request(next(self._serial), body_bytes, now + self.limits.request_seconds)
        self.population[request.phase] += 1
        self.requests[request.number] = request
        self.held_bytes += body_bytes
        return request

    def admit_background(self, body_bytes: int, priority: int, deaths: int, now: float) -> Request:
        """Accept what nobody waits for: it takes none of people's room and has no deadline.

        :param deaths: of a worker while alone in it, in a former life.
        """
        request = Request(next(self._serial), body_bytes, math.inf, True, priority)
        request.solo_deaths, request.suspect = deaths, deaths > 0
        self.background += 1
        self.requests[request.number] = request
        return request

    def resize(self, request: Request, body_bytes: int) -> None:
        """The body turns out larger. Raises Refused if there is no room."""
        if self.held_bytes - request.body_bytes + body_bytes > self.limits.total_bytes:
            raise Refused(Refusal.BYTES_FULL)
        self.held_bytes += body_bytes - request.body_bytes
        request.body_bytes = body_bytes

    def join(self, request: Request, now: float) -> None:
        """The body is complete, or a repeat is noted: it waits, until ``serve``."""
        request.queued_at = now
        if not request.background:
            self.batching.arrived(now)
            self._timers.wait(request)
        self._wait(request)

    def serve(self, joined: list[Request], now: float) -> list[Action]:
        """Give workers what waits.

        :param joined: what has joined since: together, so that they get into batches together.
        """
        actions = self._assign(now)
        if self.background:
            for request in joined:
                if is_waiting(request) and not request.background and self.batching.until is None:
                    actions += self._recall(*self.cards.to_make_way(request.model))
        return actions

    def cancel(self, request: Request, now: float) -> list[Action]:
        """The caller is gone (or the body never came)."""
        if request.phase is Phase.ENDED:
            return []
        withdrawn = self._withdraw(request)
        self._end(request)
        return withdrawn + self._assign(now)

    @property
    def depth(self) -> int:
        """Requests accepted that no worker has yet."""
        return self.population[Phase.RECEIVING] + self.population[Phase.WAITING]

    def can_serve(self, now: float) -> bool:
        """Whether a worker is there, or may be back in a moment."""
        return now < self._grace_until or self.cards.any_usable

    # --- cards

    def limit(self, number: int, limits: CardLimits, now: float) -> list[Action]:
        """A card has grown hotter or cooler."""
        card = self.cards[number]
        begins = limits.paused and not card.limits.paused
        card.limit(limits, now)
        return self._recall(*(self.cards.not_begun(number) if begins else ())) + self._assign(now)

    # --- workers

    def attach(self, seat: Seat) -> None:
        """A worker has connected."""
        self.seats[seat.key] = seat
        self._lines.sort(self.requests.values())

    def grant(self, seat: Seat, credit: int, now: float) -> list[Action]:
        """The worker takes ``credit`` more requests."""
        seat.credit += credit
        return self._assign(now)

    def set_state(self, seat: Seat, *, ready: bool, draining: bool, now: float) -> list[Action]:
        """The worker has changed state."""
        served = self.cards.is_usable(seat)
        seat.ready, seat.draining = ready, draining
        self._note_loss(served, now)
        return self._assign(now)

    def drain(self, seat: Seat, drained: bool, now: float) -> list[Action]:
        """The worker gets no new work from now on, or gets work again.

        No grace, unlike for one that is lost: nobody knows when it will be back, and what is
        accepted meanwhile might wait in vain.
        """
        seat.drained = drained
        if not drained:
            return self._assign(now)
        is_last = not self.cards.any_usable
        if is_last:
            self._grace_until = now
        unwanted = [batch for batch in seat.not_begun if batch.is_background or not is_last]
        return self._recall(*unwanted) + self._assign(now)

    def settle(self, seat: Seat, answers: list[Answered]) -> tuple[list[Verdict], Ran]:
        """The worker has answered leases (or gives them back unexecuted): see ``go_on``."""
        ran: Ran = {}
        return [self._settle(seat, one, ran) for one in answers], ran

    def go_on(self, seat: Seat, ran: Ran, now: float) -> list[Action]:
        """After ``settle``: its card is charged, and it gets the next batch."""
        for batch, gpu_seconds in ran.items():
            self.cards.charge(seat, batch, gpu_seconds, now)
            self._close_batch(seat, batch, now)
        return self._assign(now)

    def _settle(self, seat: Seat, answered: Answered, ran: Ran) -> Verdict:
        batch = seat.batch_of(answered.lease)
        if batch is None:
            return Verdict.STALE
        request = batch.leases[answered.lease]
        if request is not None and request.number != answered.number:
            return Verdict.STALE
        del batch.leases[answered.lease]
        seat.credit += 1
        ran[batch] = answered.gpu_seconds or ran.get(batch)
        if request is None:
            if (recalled := self._again.answered(answered.lease)) is not None:
                self._requeue(recalled, begun=not answered.returned)
            return Verdict.DROPPED
        if answered.returned and not request.streamed:
            self._requeue(request, begun=False)
            return Verdict.RETURNED
        self._end(request)
        return Verdict.DELIVER

    def piece(self, seat: Seat, number: int, lease: int, now: float) -> bool:
        """The worker has sent a piece of an answer: whether somebody waits for it."""
        if (request := seat.awaits(number, lease)) is not None and not request.streamed:
            request.streamed = True
            self._start(seat, seat.batch_of(lease), now)  # it may have passed an older batch
        return request is not None

    def joins(self, seat: Seat, number: int, lease: int, joining: bool, now: float) -> None:
        """A worker with slots begins to take a request in, or has taken it in."""
        if (request := seat.awaits(number, lease)) is not None and seat.slots:
            request.joining = joining
            self._start(seat, seat.batch_of(lease), now)
            self.cards.count(seat.card, now)

    def detach(self, seat: Seat, now: float) -> list[Action]:
        """The worker's connection is gone: it died, or has left after draining."""
        served = self.cards.is_usable(seat)
        del self.seats[seat.key]
        self.cards.count(seat.card, now)
        self._note_loss(served, now)
        self._lines.sort(self.requests.values())
        spread_blame(seat)
        self._let_go(seat)
        actions = [action for request in seat.awaited for action in self._give_back(request)]
        return actions + self._assign(now)

    # --- time

    def next_timer(self, known: float = math.inf) -> float | None:
        """When ``expire`` has to be called next; looked up only if that may be before ``known``."""
        timer = self._timers.next(known)
        when = known if timer is None else min(known, timer)
        if self.batching.until is not None:
            when = min(when, self.batching.until)
        if self.waiting and (rested := self.cards.next_rested()) is not None:
            when = min(when, rested)
        return None if when == math.inf else when

    def expire(self, now: float) -> list[Action]:
        """End whatever has run out of time."""
        actions: list[Action] = []
        while (subject := self._timers.pop(now)) is not None:
            if isinstance(subject, Execution):
                actions += self._overrun(subject, now)
                continue
            actions += self._cut_short(subject, ending_of(subject, self.seats))
        return actions + self._assign(now)

    def _overrun(self, late: Execution, now: float) -> list[Action]:
        """An execution has passed its limit: take everything away from its worker.

        One in a slot alone, at first: a worker that turns frees that slot, and keeps the others.
        """
        seat, actions = late.seat, list[Action]()
        for request in late.batch.awaited:
            actions += self._cut_short(request, Ending.EXECUTION_TIMEOUT)
        if self._timers.wait_for_slot(late, now):
            return actions
        actions += self._recall(*(one for one in seat.batches.values() if one is not late.batch))
        self._let_go(seat)
        served = self.cards.is_usable(seat)
        seat.stalled = True
        self._note_loss(served, now)
        return actions

    def _recall(self, *batches: Batch) -> list[Action]:
        """Give batches that their workers have not ended back to the queue."""
        actions: list[Action] = []
        for request in [request for batch in batches for request in batch.awaited]:
            actions += self._withdraw(request)
            if request.background:
                self._again.recall(request)
                self._move(request, Phase.HELD)
            else:
                actions += self._give_back(request)
        return actions

    def _let_go(self, seat: Seat) -> None:
        """Wait no longer for what a worker was asked to give back."""
        for request in self._again.left_in(seat):
            self._requeue(request, begun=True)

    def _give_back(self, request: Request) -> list[Action]:
        """To the queue; one that is half answered, or has killed too often, ends."""
        if not request.streamed and not is_given_up(request):
            self._requeue(request, begun=True)
            return []
        self._end(request)
        return [End(request, Ending.WORKER_CRASHED if is_given_up(request) else Ending.BROKEN_OFF)]

    def _cut_short(self, request: Request, ending: Ending) -> list[Action]:
        withdrawn = self._withdraw(request)
        self._end(request)
        return [*withdrawn, End(request, ending)]

    # --- the inside

    def _move(self, request: Request, phase: Phase, seat: int | None = None) -> None:
        if not request.background:
            self.population[request.phase] -= 1
            self.population[phase] += 1
        self.waiting += (phase is Phase.WAITING) - is_waiting(request)
        request.phase, request.seat = phase, seat

    def _wait(self, request: Request) -> None:
        self._move(request, Phase.WAITING)
        self._lines.join(request)

    def _requeue(self, request: Request, *, begun: bool) -> None:
        self.retried += 1
        if begun and request.background:
            self._move(request, Phase.HELD)
            self._again.begun(request)
            return
        request.dispatched_at = None
        self._wait(request)

    def _end(self, request: Request) -> None:
        self._move(request, Phase.ENDED)
        self.background -= request.background
        if not request.background:
            self.held_bytes -= request.body_bytes
        del self.requests[request.number]

    def _withdraw(self, request: Request) -> list[Action]:
        """Separate a running request from its lease, which stays until the worker answers it."""
        if request.phase is not Phase.RUNNING or request.seat is None:
            return []
        if (batch := self.seats[request.seat].batch_of(request.lease)) is not None:
            batch.leases[request.lease] = None
        return [Withdraw(request.seat, request.number, request.lease)]

    def _close_batch(self, seat: Seat, batch: Batch, now: float) -> None:
        if not batch.leases:
            del seat.batches[batch.number]
            self.cards.count(seat.card, now)
        self._start_first(seat, now)
        if not seat.batches:
            seat.exclusive = seat.stalled = False

    def _start_first(self, seat: Seat, now: float) -> None:
        """A worker begins with its oldest batch, but for one with slots, which says it itself."""
        if not seat.slots and seat.batches:
            self._start(seat, next(iter(seat.batches.values())), now)

    def _start(self, seat: Seat, batch: Batch | None, now: float) -> None:
        """A batch has begun, if that was not known yet."""
        if batch is not None and batch.started is None:
            self._timers.start(seat, batch, now, self.limits.execution_seconds)

    def _note_loss(self, served: bool, now: float) -> None:
        if served and not self.cards.any_usable:
            self._grace_until = now + self.limits.grace_seconds

    def _assign(self, now: float) -> list[Action]:
        """Give waiting requests to workers for as long as both are there."""
        actions = self._again.due()
        self.batching.until = None
        while self.waiting and (turn := next_turn(self._lines, self.cards, self.batching, now)):
            actions.append(self._dispatch(*turn, now))
        return actions

    def _dispatch(self, seat: Seat, requests: list[Request], now: float) -> Dispatch:
        batch = Batch(next(self._serial), {})
        for request in requests:
            self._move(request, Phase.RUNNING, seat.key)
            request.lease = next(self._serial)
            request.joining = False
            request.dispatched_at = now
            batch.leases[request.lease] = request
        seat.credit -= len(requests)
        seat.exclusive = seat.exclusive or requests[0].suspect
        seat.last_used = batch.number
        seat.batches[batch.number] = batch
        self.cards.count(seat.card, now)
        self._start_first(seat, now)
        if seat.slots:
            self._timers.hand_over(seat, batch, now, self.limits.execution_seconds)
        jobs = tuple([(request, request.lease) for request in requests])
        return Dispatch(seat.key, batch.number, jobs)
