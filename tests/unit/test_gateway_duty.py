# SPDX-License-Identifier: Apache-2.0
"""The share of the time in which a card works, whatever the batches are."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.gateway.duty import PERIOD_SECONDS, DutyMeter
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import Action, CardLimits, Dispatch, Limits, Seat
from tests.unit.queue_parts import enqueue, result

LIMITS = Limits(count=10**6, total_bytes=10**9, request_seconds=1e9, execution_seconds=1e9)
CARD = 0

duties = st.floats(0.05, 0.99)
lengths = st.lists(st.floats(0.005, 4.0), min_size=1, max_size=8)


@dataclass
class Running:
    seat: Seat
    request: int
    lease: int
    begins: float
    ends: float


@dataclass
class LoadedCard:
    """A card whose queue never runs empty, in simulated time.

    Each worker decodes what it gets at once, ``decode_seconds`` long, and runs it after the one
    before.
    """

    duty: float
    batches: Iterator[float]
    workers: int = 1
    decode_seconds: float = 0.0
    tells: bool = True
    now: float = 0.0
    running: list[Running] = field(default_factory=list)
    worked: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = RequestQueue(LIMITS, 0.0)
        self.carry_out(self.queue.limit(CARD, CardLimits(1, self.duty), 0.0))
        self.seats = [Seat(key, CARD, 4) for key in range(self.workers)]
        for seat in self.seats:
            self.queue.attach(seat)
            self.carry_out(self.queue.grant(seat, 8, 0.0))
            self.carry_out(self.queue.set_state(seat, ready=True, draining=False, now=0.0))

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            assert isinstance(action, Dispatch)
            ((request, lease),) = action.jobs
            before = [one.ends for one in self.running if one.seat.key == action.seat]
            begins = max(self.now + self.decode_seconds, *before, 0.0)
            ends = begins + next(self.batches)
            seat = self.seats[action.seat]
            self.running.append(Running(seat, request.number, lease, begins, ends))

    def ask(self) -> None:
        while self.queue.depth < 4:
            request = self.queue.admit(1, self.now)
            self.carry_out(enqueue(self.queue, request, self.now))

    def work(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.ask()
            first = min(self.running, key=lambda one: one.ends, default=None)
            timer = self.queue.next_timer()
            next_times = [first.ends if first else None, timer]
            self.now = min(when for when in next_times if when is not None)
            if self.now >= end:
                return
            if first is not None and first.ends == self.now:
                self.finish(first)
            else:
                self.carry_out(self.queue.expire(self.now))

    def finish(self, done: Running) -> None:
        self.running.remove(done)
        self.worked.append((done.begins, done.ends))
        _, actions = result(
            self.queue,
            done.seat,
            done.request,
            done.lease,
            returned=False,
            now=self.now,
            gpu_seconds=done.ends - done.begins if self.tells else None,
        )
        self.carry_out(actions)

    def busy_seconds(self) -> float:
        """How long at least one batch ran."""
        total, until = 0.0, -math.inf
        for begin, end in sorted(self.worked):
            total += max(0.0, end - max(begin, until))
            until = max(until, end)
        return total


@settings(deadline=None, max_examples=40)
@given(duty=duties, seconds=lengths, workers=st.integers(1, 3), tells=st.booleans())
def test_a_card_with_enough_to_do_works_for_its_share_of_the_time(
    duty: float, seconds: list[float], workers: int, tells: bool
) -> None:
    card = LoadedCard(duty, itertools.cycle(seconds), workers, tells=tells)
    card.work(300.0)
    # Of the time, but for what was saved up at first and what runs or is owed at the end.
    slack = PERIOD_SECONDS + (workers + 1) * max(seconds)
    assert abs(card.busy_seconds() - duty * card.now) <= slack


@settings(deadline=None, max_examples=40)
@given(
    duty=duties,
    seconds=lengths,
    workers=st.integers(1, 3),
    decode_seconds=st.floats(0, 3),
    tells=st.booleans(),
)
def test_however_work_and_preparation_meet_a_card_never_works_for_longer_than_its_share(
    duty: float, seconds: list[float], workers: int, decode_seconds: float, tells: bool
) -> None:
    card = LoadedCard(duty, itertools.cycle(seconds), workers, decode_seconds, tells)
    card.work(300.0)
    slack = PERIOD_SECONDS + (workers + 1) * max(seconds)
    assert card.busy_seconds() <= duty * card.now + slack


def test_a_batch_of_three_seconds_at_half_duty_is_followed_by_three_seconds_of_rest() -> None:
    card = LoadedCard(0.5, itertools.repeat(3.0))
    card.work(60.0)
    rests = [after[0] - before[1] for before, after in itertools.pairwise(card.worked)]
    assert rests[2:] == pytest.approx([3.0] * len(rests[2:]))


def test_short_batches_alternate_with_short_rests() -> None:
    card = LoadedCard(0.8, itertools.repeat(0.02))
    card.work(60.0)
    rests = [after[0] - before[1] for before, after in itertools.pairwise(card.worked[-500:])]
    assert rests == pytest.approx([0.005] * len(rests))


def test_a_card_that_waits_for_images_to_be_decoded_rests_meanwhile() -> None:
    # It runs for half a second in each 1.5 s by itself, were images decoded one by one.
    card = LoadedCard(0.9, itertools.repeat(0.5), decode_seconds=1.0)
    card.work(60.0)
    assert card.busy_seconds() / card.now > 0.6


def test_while_a_batch_runs_the_next_is_prepared_if_the_card_need_not_rest_between_them() -> None:
    meter = DutyMeter()
    meter.set_duty(0.5, 0.0)
    assert not meter.permits(1, 10.0)  # nobody knows how long a batch takes
    meter.set_running(1, 10.0)
    meter.batch_ended(10.0, 0.1, 10.1)
    assert meter.permits(1, 10.1)
    assert not meter.permits(100, 10.1)


def test_at_full_duty_there_is_no_rest_and_nothing_is_remembered() -> None:
    meter = DutyMeter()
    meter.set_duty(0.5, 0.0)
    meter.set_running(1, 0.0)
    assert not meter.permits(0, 20.0)
    meter.set_duty(1.0, 20.0)
    assert meter.permits(1, 20.0)
    meter.set_running(0, 21.0)
    meter.set_duty(0.5, 21.0)
    assert meter.permits(0, 21.0)


def test_a_worker_that_hung_for_an_hour_does_not_close_its_card_for_another() -> None:
    meter = DutyMeter()
    meter.set_duty(0.5, 0.0)
    meter.set_running(1, 0.0)
    meter.set_running(0, 3600.0)
    rested_at = meter.rested_at()
    assert rested_at is not None
    assert rested_at <= 3630.0
