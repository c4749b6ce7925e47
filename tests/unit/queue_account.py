# SPDX-License-Identifier: Apache-2.0
"""An independent account of what the queue gives to whom, for its state machines."""

from collections import Counter

from hypothesis.stateful import RuleBasedStateMachine

from gpuwarden.gateway.batching import BatchRules
from gpuwarden.gateway.blame import SOLO_DEATH_LIMIT
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import (
    BATCHES_PER_WORKER,
    Action,
    Dispatch,
    End,
    Ending,
    Phase,
    Repeat,
    Request,
    Seat,
    Weight,
    Withdraw,
)
from tests.unit.queue_parts import LIMITS, exceeds


class Account(RuleBasedStateMachine):
    """Callers and workers as the queue sees them: who holds what, counted independently of it."""

    batch_rules = BatchRules(budget=Weight(40, 30))

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = RequestQueue(LIMITS, self.now)
        self.queue.batching.rules = self.batch_rules
        self.receiving: list[Request] = []
        self.unanswered: dict[int, Request] = {}
        self.answers: Counter[int] = Counter()
        self.seats: dict[int, Seat] = {}
        self.held: dict[int, dict[int, int]] = {}  # seat -> lease -> request
        self.cancelled: set[tuple[int, int]] = set()
        self.repeats: list[Request] = []  # that their owner has not noted yet
        self.begun: set[tuple[int, int]] = set()  # by the word of workers with slots
        self.joining: set[tuple[int, int]] = set()
        self.granted: Counter[int] = Counter()
        self.last_seat = 0

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Dispatch(key, _, jobs):
                    self.check_dispatch(self.seats[key], [request for request, _ in jobs])
                    for request, lease in jobs:
                        assert lease not in self.held[key]
                        assert request not in self.repeats
                        self.held[key][lease] = request.number
                case Withdraw(key, request, lease):
                    assert self.held[key][lease] == request
                    self.cancelled.add((key, lease))
                case Repeat(request):
                    assert request.background
                    assert request.phase is Phase.HELD
                    self.repeats.append(request)
                case End(request, ending):
                    self.finish(request)
                    if ending is Ending.WORKER_CRASHED:
                        assert request.solo_deaths == SOLO_DEATH_LIMIT

    def check_dispatch(self, seat: Seat, requests: list[Request]) -> None:
        limits = self.queue.cards[seat.card].limits
        assert not limits.paused
        if limits.batch_limit is not None:
            count = len(self.held[seat.key]) * seat.slots + len(requests)
            assert count <= limits.batch_limit
        assert seat.ready
        assert not seat.draining
        assert not seat.stalled
        assert not seat.drained or not any(map(self.is_usable, self.seats.values()))
        assert not any(seat.drained and one.background for one in requests)
        outstanding = self.held[seat.key]
        assert len(outstanding) + len(requests) <= self.granted[seat.key]
        assert 1 <= len(requests) <= (1 if seat.slots else seat.max_batch)
        assert len({request.background for request in requests}) == 1
        assert len(requests) == 1 or seat.mixed or len({request.kind for request in requests}) == 1
        budget = self.batch_rules.budget.least(seat.budget)
        weights = [request.weight for request in requests]
        assert len(requests) == 1 or not exceeds(weights, budget)
        if any(request.suspect for request in requests):
            assert len(requests) == 1
            assert not outstanding
        assert seat.slots or len(seat.batches) <= BATCHES_PER_WORKER

    def finish(self, request: Request) -> None:
        del self.unanswered[request.number]
        self.answers[request.number] += 1
        assert request.phase is Phase.ENDED

    def is_its(self, request: Request, held: dict[int, int]) -> bool:
        """Whether a worker's lease is the last one of a request, which it may have begun."""
        is_out = request.phase in (Phase.RUNNING, Phase.HELD) and request not in self.repeats
        return is_out and held.get(request.lease) == request.number

    def is_paused(self, card: int) -> bool:
        return self.queue.cards[card].limits.paused

    def is_usable(self, seat: Seat) -> bool:
        return seat.serving and not seat.drained and not self.is_paused(seat.card)

    def waiting(self) -> int:
        return sum(one.phase is Phase.WAITING for one in self.people())

    def people(self) -> list[Request]:
        return [one for one in self.unanswered.values() if not one.background]

    def alive(self) -> list[Request]:
        return [*self.receiving, *self.unanswered.values()]

    def works(self, card: int) -> bool:
        return any(seat.batches for seat in self.seats.values() if seat.card == card)
