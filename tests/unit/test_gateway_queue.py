# SPDX-License-Identifier: Apache-2.0
"""The queue under anything that callers, workers and time can do to it, in any order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from gpuwarden.gateway.batching import BatchRules, company_until
from gpuwarden.gateway.work import (
    CardLimits,
    Kind,
    Phase,
    Refusal,
    Refused,
    Repeat,
    Request,
    Seat,
    Verdict,
    Weight,
)
from tests.unit.queue_account import Account
from tests.unit.queue_parts import LIMITS, enqueue, result


class Node(Account):
    """What happens to the queue, and what always holds."""

    @initialize()
    def first_worker(self) -> None:
        for card in range(3):
            self.carry_out(self.queue.limit(card, CardLimits(), self.now))
        self.connect(2, False, 0)

    @rule(
        card=st.integers(0, 2),
        batch_limit=st.none() | st.integers(1, 3),
        duty=st.sampled_from([1.0, 1.0, 0.75, 0.5, 0.1]),
        paused=st.booleans(),
    )
    def heat_changes(self, card: int, batch_limit: int | None, duty: float, paused: bool) -> None:
        self.carry_out(self.queue.limit(card, CardLimits(batch_limit, duty, paused), self.now))

    @rule(max_batch=st.integers(1, 4), slots=st.booleans(), card=st.integers(0, 2))
    def connect(self, max_batch: int, slots: bool, card: int) -> None:
        self.last_seat += 1
        seat = Seat(self.last_seat, card, max_batch, slots)
        seat.budget = Weight(60, 20)
        seat.mixed = card == 0
        self.seats[seat.key] = seat
        self.held[seat.key] = {}
        self.queue.attach(seat)
        self.carry_out(self.queue.set_state(seat, ready=True, draining=False, now=self.now))
        self.granted[seat.key] = 2 * max_batch
        self.carry_out(self.queue.grant(seat, 2 * max_batch, self.now))

    def pick(self, data: st.DataObject) -> Seat:
        return self.seats[data.draw(st.sampled_from(sorted(self.seats)))]

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        seat = self.pick(data)
        del self.seats[seat.key]
        held = self.held.pop(seat.key)
        running = {
            lease: self.unanswered[number]
            for lease, number in held.items()
            if (seat.key, lease) not in self.cancelled
        }
        joining = [lease for lease in running if (seat.key, lease) in self.joining]
        before = {lease: (one.solo_deaths, one.suspect) for lease, one in running.items()}
        shared = {lease: one.shared_deaths for lease, one in running.items()}
        alive = self.unanswered.values()
        had = [one for one in alive if one.background and self.is_its(one, held)]
        self.carry_out(self.queue.detach(seat, self.now))
        assert all(one in self.repeats or one.phase is Phase.ENDED for one in had)
        ran = [lease for lease in held if (seat.key, lease) in self.begun] or list(held)
        blamed = joining or [lease for lease in ran if lease in running]
        several = seat.slots and len(blamed) > 1
        for lease, request in running.items():
            deaths, suspect = before[lease]
            alone = joining == [lease] or (len(ran) == 1 and not joining)
            is_doubted = not seat.draining and lease in blamed
            assert request.solo_deaths == deaths + (alone and is_doubted)
            is_forgiven = several and shared[lease] == 0
            assert request.suspect == (suspect or (is_doubted and not is_forgiven))

    @precondition(lambda self: self.repeats)
    @rule()
    def a_repeat_is_noted(self) -> None:
        request = self.repeats.pop(0)
        if request.phase is not Phase.ENDED:
            self.carry_out(enqueue(self.queue, request, self.now))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), joining=st.booleans())
    def worker_takes_in(self, data: st.DataObject, joining: bool) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, held in self.held.items() if held)))
        lease = data.draw(st.sampled_from(sorted(self.held[key])))
        self.queue.joins(self.seats[key], self.held[key][lease], lease, joining, self.now)
        if self.seats[key].slots and (key, lease) not in self.cancelled:
            self.begun.add((key, lease))
            (self.joining.add if joining else self.joining.discard)((key, lease))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), returned=st.booleans(), seconds=st.none() | st.floats(0.0, 20.0))
    def worker_answers(self, data: st.DataObject, returned: bool, seconds: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, held in self.held.items() if held)))
        lease = data.draw(st.sampled_from(sorted(self.held[key])))
        number = self.held[key].pop(lease)
        seat, now = self.seats[key], self.now
        held = [one for one in self.unanswered.values() if one.phase is Phase.HELD]
        recalled = [one for one in held if self.is_its(one, {lease: number})]
        verdict, actions = result(
            self.queue, seat, number, lease, returned=returned, now=now, gpu_seconds=seconds
        )
        if (key, lease) in self.cancelled:
            assert verdict is Verdict.DROPPED
            begun = [] if returned else recalled
            assert [one for one in actions if isinstance(one, Repeat)] == list(map(Repeat, begun))
        elif returned:
            assert verdict is Verdict.RETURNED
        else:
            assert verdict is Verdict.DELIVER
            self.finish(self.unanswered[number])
        self.carry_out(actions)

    @precondition(lambda self: self.seats)
    @rule(data=st.data(), lease=st.integers(0, 40), number=st.integers(0, 20))
    def worker_answers_what_it_does_not_hold(
        self, data: st.DataObject, lease: int, number: int
    ) -> None:
        seat = self.pick(data)
        if self.held[seat.key].get(lease) is not None:
            return
        verdict, actions = result(self.queue, seat, number, lease, returned=False, now=self.now)
        assert verdict is Verdict.STALE
        assert not actions

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def worker_drains(self, data: st.DataObject) -> None:
        seat = self.pick(data)
        self.carry_out(self.queue.set_state(seat, ready=False, draining=True, now=self.now))

    @precondition(lambda self: self.seats)
    @rule(data=st.data(), drained=st.booleans())
    def guard_drains(self, data: st.DataObject, drained: bool) -> None:
        self.carry_out(self.queue.drain(self.pick(data), drained, self.now))

    # --- callers

    @rule(size=st.integers(0, 25))
    def headers_come(self, size: int) -> None:
        try:
            request = self.queue.admit(size, self.now)
        except Refused as refused:
            waiting = len(self.receiving) + self.waiting()
            held = sum(one.body_bytes for one in [*self.receiving, *self.people()])
            serving = any(one.serving and not one.drained for one in self.seats.values())
            usable = any(self.is_usable(seat) for seat in self.seats.values())
            assert {
                Refusal.QUEUE_FULL: waiting >= LIMITS.count,
                Refusal.BYTES_FULL: held + size > LIMITS.total_bytes,
                Refusal.NO_WORKER: not serving,
                Refusal.TOO_HOT: not usable and any(self.is_paused(card) for card in range(3)),
            }[refused.reason]
            return
        request.weight = Weight(size, 25 - size)
        request.kind = Kind(pixels=size // 10)
        self.receiving.append(request)

    @rule(size=st.integers(0, 200), priority=st.integers(-2, 2), failures=st.integers(0, 1))
    def job_comes(self, size: int, priority: int, failures: int) -> None:
        """Whatever people hold, there is room for it, and it takes none of theirs."""
        request = self.queue.admit_background(size, priority, failures, self.now)
        request.weight = Weight(size)
        request.kind = Kind(pixels=size // 100)
        self.unanswered[request.number] = request
        self.carry_out(enqueue(self.queue, request, self.now))

    @precondition(lambda self: self.receiving)
    @rule(data=st.data())
    def body_completes(self, data: st.DataObject) -> None:
        request = self.receiving.pop(data.draw(st.integers(0, len(self.receiving) - 1)))
        self.unanswered[request.number] = request
        self.carry_out(enqueue(self.queue, request, self.now))
        self.carry_out(self.queue.expire(self.now))  # its deadline may have passed meanwhile

    @precondition(lambda self: self.receiving)
    @rule(data=st.data())
    def body_breaks_off(self, data: st.DataObject) -> None:
        request = self.receiving.pop(data.draw(st.integers(0, len(self.receiving) - 1)))
        self.carry_out(self.queue.cancel(request, self.now))

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data())
    def caller_leaves(self, data: st.DataObject) -> None:
        request = self.unanswered.pop(data.draw(st.sampled_from(sorted(self.unanswered))))
        self.carry_out(self.queue.cancel(request, self.now))
        assert self.queue.cancel(request, self.now) == []

    # --- time

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.queue.expire(self.now))
        upcoming = self.queue.next_timer()
        assert upcoming is None or upcoming > self.now

    # --- what always holds

    @invariant()
    def nobody_is_lost(self) -> None:
        running = {
            number
            for key, held in self.held.items()
            for lease, number in held.items()
            if (key, lease) not in self.cancelled
        }
        for number, request in self.unanswered.items():
            if request.phase is Phase.HELD:
                recalled = any(self.is_its(request, held) for held in self.held.values())
                assert recalled != (request in self.repeats)
                continue
            assert request.phase is (Phase.RUNNING if number in running else Phase.WAITING)
            assert request.deadline > self.now
        assert running <= self.unanswered.keys()

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        assert all(count == 1 for count in self.answers.values())

    @invariant()
    def the_books_are_right(self) -> None:
        people = [*self.receiving, *self.people()]
        assert self.queue.held_bytes == sum(one.body_bytes for one in people)
        assert self.queue.depth == len(self.receiving) + self.waiting()
        assert set(self.queue.requests) == {one.number for one in self.alive()}
        for key, seat in self.seats.items():
            assert seat.outstanding == len(self.held[key])
            assert seat.credit + seat.outstanding == self.granted[key]

    @invariant()
    def no_worker_idles_while_somebody_waits(self) -> None:
        waiting = [one for one in self.unanswered.values() if one.phase is Phase.WAITING]
        if not waiting:
            return
        idle = [seat for seat in self.seats.values() if seat.open and not seat.batches]
        for seat in idle:
            if self.is_paused(seat.card):
                continue
            if seat.drained and any(map(self.is_usable, self.seats.values())):
                continue
            if seat.drained and all(one.background for one in waiting):
                continue
            if self.waits_for_company(waiting):
                continue
            assert self.queue.cards[seat.card].limits.duty < 1
            if not self.works(seat.card):
                rested_at = self.queue.cards[seat.card].rested_at()
                upcoming = self.queue.next_timer()
                assert rested_at is not None
                assert upcoming is not None
                assert self.now < upcoming <= rested_at

    def waits_for_company(self, waiting: list[Request]) -> bool:
        """Whether that is why an idle worker is given nothing."""
        assert self.queue.batching.until is None
        return False

    @invariant()
    def what_a_paused_card_has_not_begun_is_taken_back(self) -> None:
        for seat in self.seats.values():
            if self.is_paused(seat.card):
                for batch in seat.not_begun:
                    assert not any(batch.leases.values())

    def teardown(self) -> None:
        """With healthy workers everybody who still waits gets an answer."""
        for request in self.receiving:
            self.unanswered[request.number] = request
            self.carry_out(enqueue(self.queue, request, self.now))
        self.receiving = []
        for card in range(3):
            self.carry_out(self.queue.limit(card, CardLimits(), self.now))
        self.connect(4, False, 0)
        for _ in range(10_000):
            while self.repeats:
                self.a_repeat_is_noted()
            key = next((one for one, held in self.held.items() if held), None)
            if key is None and self.queue.batching.until is not None:
                self.now = self.queue.batching.until
                self.carry_out(self.queue.expire(self.now))
                continue
            if key is None:
                break
            lease, number = next(iter(self.held[key].items()))
            del self.held[key][lease]
            verdict, actions = result(
                self.queue, self.seats[key], number, lease, returned=False, now=self.now
            )
            if verdict is Verdict.DELIVER:
                self.finish(self.unanswered[number])
            self.carry_out(actions)
        assert not self.unanswered
        assert self.queue.held_bytes == 0


TestQueue = Node.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


class LingeringNode(Node):
    """The same where batches wait for company."""

    batch_rules = BatchRules(linger_seconds=2.0, budget=Weight(60, 60))

    def waits_for_company(self, waiting: list[Request]) -> bool:
        until = self.queue.batching.until
        if until is None:
            return False
        people = [one for one in waiting if not one.background and not one.suspect]
        latest = min(company_until(one, self.batch_rules.linger_seconds) for one in people)
        upcoming = self.queue.next_timer()
        assert upcoming is not None
        assert self.now < upcoming <= until <= latest
        return True


TestLingeringQueue = LingeringNode.TestCase
TestLingeringQueue.settings = settings(max_examples=75, stateful_step_count=50, deadline=None)
