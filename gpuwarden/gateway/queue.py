"""The order of things: which request goes to which worker, when, and what happens when one dies.

Pure: no clock, no socket, no event loop. Each method takes the time (seconds of any monotonic
clock) and returns what is to be done. Nothing accepted is lost: a request leaves only by its
answer, its caller, its deadline or its own third death.

- **Order**: by acceptance. What a worker gives back returns to its old place, that is the head.
- **Batches**: greedy. A worker holds one batch that runs and one that is being prepared; while it
  does, requests gather, so batches grow with the load and nobody waits for company.
- **Cards**: the card with least outstanding work first, then the worker with least, then the one
  that has rested longest.
- **Suspects**: whoever was in a worker that died is retried alone in a worker, so that one
  poisonous image doesn't use up its neighbours' attempts. Only deaths while alone count.
"""

import itertools
from collections import Counter

from gpuwarden.gateway.lazyheap import LazyHeap
from gpuwarden.gateway.work import (
    Action,
    Batch,
    Dispatch,
    End,
    Ending,
    Execution,
    Limits,
    Phase,
    Refusal,
    Refused,
    Request,
    Seat,
    Verdict,
    Withdraw,
    is_waiting,
)

SOLO_DEATH_LIMIT = 3  # deaths of a worker while alone in it, until a request is given up


class RequestQueue:
    """All accepted requests and all connected workers."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.draining = False
        self.requests: dict[int, Request] = {}
        self.seats: dict[int, Seat] = {}
        self.retried = 0
        self.held_bytes = 0
        self._grace_until = now + limits.grace_seconds
        self._waiting = LazyHeap[Request](is_waiting)
        self._suspects = LazyHeap[Request](is_waiting)
        self._timers = LazyHeap[Request | Execution](self._is_running_out)
        self._population = [0] * len(Phase)
        self._serial = itertools.count(1)

    # --- callers

    def admit(self, body_bytes: int, now: float) -> Request:
        """Accept a request whose body is still to come. Raises Refused."""
        if self.draining:
            raise Refused(Refusal.DRAINING)
        if not self.can_serve(now):
            raise Refused(Refusal.NO_WORKER)
        if self.depth >= self.limits.count:
            raise Refused(Refusal.QUEUE_FULL)
        if self.held_bytes + body_bytes > self.limits.total_bytes:
            raise Refused(Refusal.BYTES_FULL)
        request = Request(next(self._serial), body_bytes, now + self.limits.request_seconds)
        self._population[request.phase] += 1
        self.requests[request.number] = request
        self.held_bytes += body_bytes
        return request

    def resize(self, request: Request, body_bytes: int) -> None:
        """The body turns out larger. Raises Refused if there is no room."""
        if self.held_bytes - request.body_bytes + body_bytes > self.limits.total_bytes:
            raise Refused(Refusal.BYTES_FULL)
        self.held_bytes += body_bytes - request.body_bytes
        request.body_bytes = body_bytes

    def enqueue(self, request: Request, now: float) -> list[Action]:
        """The body is complete."""
        self._timers.push(request.deadline, request)
        self._wait(request)
        return self._assign(now)

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
        return self._population[Phase.RECEIVING] + self._population[Phase.WAITING]

    def can_serve(self, now: float) -> bool:
        """Whether a worker is there, or may be back in a moment."""
        return now < self._grace_until or bool(self._serving())

    # --- workers

    def attach(self, seat: Seat) -> None:
        """A worker has connected."""
        self.seats[seat.key] = seat

    def grant(self, seat: Seat, credit: int, now: float) -> list[Action]:
        """The worker takes ``credit`` more requests."""
        seat.credit += credit
        return self._assign(now)

    def set_state(self, seat: Seat, *, ready: bool, draining: bool, now: float) -> list[Action]:
        """The worker has changed state."""
        served = seat.serving
        seat.ready = ready
        seat.draining = draining
        self._note_loss(served, now)
        return self._assign(now)

    def result(
        self, seat: Seat, number: int, lease: int, *, returned: bool, now: float
    ) -> tuple[Verdict, list[Action]]:
        """The worker has answered a lease (or gives it back unexecuted)."""
        batch = next((one for one in seat.batches.values() if lease in one.leases), None)
        if batch is None:
            return Verdict.STALE, []
        request = batch.leases[lease]
        if request is not None and request.number != number:
            return Verdict.STALE, []
        del batch.leases[lease]
        seat.credit += 1
        self._close_batch(seat, batch, now)
        verdict = Verdict.DROPPED
        if request is not None and returned:
            verdict = Verdict.RETURNED
            self._requeue(request)
        elif request is not None:
            verdict = Verdict.DELIVER
            self._end(request)
        return verdict, self._assign(now)

    def detach(self, seat: Seat, now: float) -> list[Action]:
        """The worker's connection is gone: it died, or has left after draining."""
        del self.seats[seat.key]
        self._note_loss(seat.serving, now)
        alone = seat.outstanding == 1
        actions: list[Action] = []
        for batch in seat.batches.values():
            for request in batch.leases.values():
                if request is None:
                    continue
                if not seat.draining:
                    request.suspect = True
                    request.solo_deaths += alone
                if request.solo_deaths >= SOLO_DEATH_LIMIT:
                    self._end(request)
                    actions.append(End(request, Ending.WORKER_CRASHED))
                else:
                    self._requeue(request)
        return actions + self._assign(now)

    # --- time

    def next_timer(self) -> float | None:
        """When ``expire`` has to be called next."""
        first = self._timers.first()
        return first[0] if first else None

    def expire(self, now: float) -> list[Action]:
        """End whatever has run out of time."""
        actions: list[Action] = []
        while (when := self.next_timer()) is not None and when <= now:
            subject = self._timers.pop()
            if isinstance(subject, Execution):
                actions += self._stall(subject.seat, subject.batch, now)
                continue
            ending = Ending.DEADLINE if subject.phase is Phase.RUNNING else Ending.QUEUE_TIMEOUT
            actions += self._withdraw(subject)
            self._end(subject)
            actions.append(End(subject, ending))
        return actions + self._assign(now)

    def _stall(self, seat: Seat, late: Batch, now: float) -> list[Action]:
        """An execution has passed its limit: take everything away from that worker."""
        actions: list[Action] = []
        for batch in seat.batches.values():
            for request in [one for one in batch.leases.values() if one is not None]:
                actions += self._withdraw(request)
                if batch is late:
                    self._end(request)
                    actions.append(End(request, Ending.EXECUTION_TIMEOUT))
                else:
                    self._requeue(request)
        served = seat.serving
        seat.stalled = True
        self._note_loss(served, now)
        return actions

    def _is_running_out(self, subject: "Request | Execution") -> bool:
        if isinstance(subject, Request):
            return subject.phase is not Phase.ENDED
        seat = subject.seat
        return seat.key in self.seats and subject.batch.number in seat.batches and not seat.stalled

    # --- the inside

    def _move(self, request: Request, phase: Phase, seat: int | None = None) -> None:
        self._population[request.phase] -= 1
        self._population[phase] += 1
        request.phase = phase
        request.seat = seat

    def _wait(self, request: Request) -> None:
        self._move(request, Phase.WAITING)
        (self._suspects if request.suspect else self._waiting).push(request.number, request)

    def _requeue(self, request: Request) -> None:
        self.retried += 1
        self._wait(request)

    def _end(self, request: Request) -> None:
        self._move(request, Phase.ENDED)
        self.held_bytes -= request.body_bytes
        del self.requests[request.number]

    def _withdraw(self, request: Request) -> list[Action]:
        """Separate a running request from its lease, which stays until the worker answers it."""
        if request.phase is not Phase.RUNNING or request.seat is None:
            return []
        for batch in self.seats[request.seat].batches.values():
            if request.lease in batch.leases:
                batch.leases[request.lease] = None
        return [Withdraw(request.seat, request.number, request.lease)]

    def _close_batch(self, seat: Seat, batch: Batch, now: float) -> None:
        if not batch.leases:
            del seat.batches[batch.number]
        if not seat.batches:
            seat.exclusive = False
            seat.stalled = False
            return
        self._start_first(seat, now)

    def _start_first(self, seat: Seat, now: float) -> None:
        """The oldest batch of a worker is the one that runs (with slots, all of them do)."""
        running = list(seat.batches.values()) if seat.slots else [next(iter(seat.batches.values()))]
        for batch in running:
            if batch.started is None:
                batch.started = now
                limit = now + self.limits.execution_seconds
                self._timers.push(limit, Execution(seat, batch))

    def _note_loss(self, served: bool, now: float) -> None:
        if served and not self._serving():
            self._grace_until = now + self.limits.grace_seconds

    def _assign(self, now: float) -> list[Action]:
        """Give waiting requests to workers for as long as both are there."""
        actions: list[Action] = []
        while (batch := self._next_batch()) is not None:
            actions.append(self._dispatch(*batch, now))
        return actions

    def _next_batch(self) -> tuple[Seat, list[Request]] | None:
        ordinary = self._waiting.first() is not None
        suspect = self._suspects.first() is not None
        if not ordinary and not suspect:
            return None
        by_load = self._serving_by_load()
        seats = [seat for seat in by_load if seat.open]
        if suspect and not (ordinary and self._has_quarantine()):
            idle = next((seat for seat in seats if not seat.batches), None)
            if idle is not None:
                return idle, [self._suspects.pop()]
            # The least loaded gets nothing more until it is idle.
            seats = [seat for seat in seats if seat is not by_load[0]]
        if not ordinary or not seats:
            return None
        seat = seats[0]
        size = 1 if seat.slots else min(seat.max_batch, seat.credit)
        requests: list[Request] = []
        while len(requests) < size and self._waiting.first() is not None:
            requests.append(self._waiting.pop())
        return seat, requests

    def _has_quarantine(self) -> bool:
        """One worker at a time is enough for suspects while others wait for the rest."""
        return any(seat.exclusive for seat in self.seats.values())

    def _serving(self) -> list[Seat]:
        return [seat for seat in self.seats.values() if seat.serving]

    def _serving_by_load(self) -> list[Seat]:
        """Least outstanding work on the card first, then in the worker, then the longest rested."""
        cards: Counter[int] = Counter()
        for seat in self.seats.values():
            cards[seat.card] += seat.outstanding
        return sorted(
            self._serving(), key=lambda seat: (cards[seat.card], seat.outstanding, seat.last_used)
        )

    def _dispatch(self, seat: Seat, requests: list[Request], now: float) -> Dispatch:
        batch = Batch(next(self._serial), {})
        for request in requests:
            self._move(request, Phase.RUNNING, seat.key)
            request.lease = next(self._serial)
            request.dispatched_at = now
            batch.leases[request.lease] = request
        seat.credit -= len(requests)
        seat.exclusive = seat.exclusive or requests[0].suspect
        seat.last_used = batch.number
        seat.batches[batch.number] = batch
        self._start_first(seat, now)
        jobs = tuple((request, request.lease) for request in requests)
        return Dispatch(seat.key, batch.number, jobs)
