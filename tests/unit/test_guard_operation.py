# SPDX-License-Identifier: Apache-2.0
"""What may be done with a worker and when; never two things at once, and it ends as wanted."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpuwarden.bus.errors import BusError, Busy, Unavailable
from gpuwarden.guard.breaker import CLOSED, Breaker
from gpuwarden.guard.lifecycle import Intent, UnitFacts, next_intent, should_start
from gpuwarden.guard.lives import STOPPED, UNSEEN, ending_of
from gpuwarden.guard.operation import Kind, Operation, parse_operation, refusal
from gpuwarden.guard.operations import patience_seconds
from gpuwarden.guard.rolling import turns
from gpuwarden.names import worker_number, worker_unit
from gpuwarden.values import WorkerState
from tests.integration.bus_states import worker

UP, DOWN = WorkerState.READY, WorkerState.STOPPED
RESET = Breaker("reset", "XID 119")
STARTS = (Kind.START, Kind.RESTART)


def answer(kind: Kind, **changes: Any) -> BusError | None:
    given: dict[str, Any] = {
        "under_way": None,
        "breaker": CLOSED,
        "stopping": False,
        "card_asks": False,
    }
    state = {name: changes.pop(name) for name in ("state", "held") if name in changes}
    return refusal(kind, worker(0, **state), **(given | changes))


@pytest.mark.parametrize(
    ("situation", "refused", "error"),
    [
        ({}, (), None),
        ({"state": DOWN}, (Kind.DRAIN,), Unavailable),
        ({"state": WorkerState.LOADING}, (Kind.DRAIN,), Unavailable),
        ({"state": WorkerState.DRAINING}, (), None),
        ({"under_way": Operation(Kind.STOP)}, tuple(Kind), Busy),
        ({"under_way": Operation(Kind.RESTART, "rolling restart", waits=True)}, tuple(Kind), Busy),
        ({"stopping": True}, tuple(Kind), Unavailable),
        ({"held": "heat"}, STARTS, Unavailable),
        ({"held": "released"}, STARTS, Unavailable),
        ({"held": "reset", "breaker": RESET, "card_asks": True}, STARTS, Unavailable),
        ({"held": "reset", "breaker": RESET}, (), None),
    ],
)
def test_what_may_be_done_when(
    situation: dict[str, Any], refused: tuple[Kind, ...], error: type[BusError] | None
) -> None:
    for kind in Kind:
        found = answer(kind, **situation)
        assert type(found) is (error if kind in refused else type(None)), kind


@given(
    st.sampled_from(Kind),
    st.text(st.characters(exclude_categories=["C"]), max_size=20),
    st.booleans(),
)
def test_an_operation_is_known_by_its_words(kind: Kind, reason: str, waits: bool) -> None:
    operation = Operation(Kind.RESTART if waits else kind, reason, waits)
    assert parse_operation(operation.words) == operation
    assert operation.begun.waits is False


def test_no_operation_and_a_standing_drain_are_none() -> None:
    assert parse_operation("") is parse_operation("drained") is None


def test_a_rolling_restart_takes_wanted_workers_card_by_card() -> None:
    workers = [
        worker(3, gpu=1),
        worker(0, gpu=0),
        worker(1, gpu=0, wanted=False),
        worker(2, gpu=1),
        worker(4, gpu=2, held="heat"),
    ]
    assert turns(workers) == {0: [0], 1: [2, 3]}


def died(result: str, exit_code: int, exit_status: int) -> UnitFacts:
    return UnitFacts(
        exec_pid=7, exit_code=exit_code, exit_status=exit_status, result=result, main_pid=0
    )


@pytest.mark.parametrize(
    ("told", "how"),
    [
        (died("signal", 2, 9), "killed by SIGKILL"),
        (died("core-dump", 3, 11), "killed by SIGSEGV"),
        (died("exit-code", 1, 70), "exit status 70"),
        (died("oom-kill", 2, 9), "killed by the kernel at its memory limit"),
        (died("watchdog", 2, 9), "did not answer its watchdog"),
        (UnitFacts(exec_pid=8), UNSEEN),
    ],
)
def test_how_a_life_ended_that_nobody_had_ordered_to_end(told: UnitFacts, how: str) -> None:
    ending = ending_of(7, told, restarted=True)
    assert ending.how == ending.error == how


@pytest.mark.parametrize("told", [died("success", 1, 0), UnitFacts(exec_pid=8)])
def test_an_end_without_failure_was_ordered_by_somebody(told: UnitFacts) -> None:
    ending = ending_of(7, told, restarted=False)
    assert (ending.how, ending.error) == (STOPPED, "")


def test_a_unit_names_its_worker() -> None:
    assert worker_number(worker_unit(12)) == 12
    for unit in ("medgemma-guard.service", "medgemma-worker@x.service", "medgemma-worker@.service"):
        assert worker_number(unit) is None


class Orders(RuleBasedStateMachine):
    """One worker, an operator's orders at any moment, failures, and the guard's own tries."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = DOWN
        self.intent = Intent()
        self.under_way: Operation | None = None
        self.last_accepted: Kind | None = None

    @rule(kind=st.sampled_from(Kind))
    def operator_orders(self, kind: Kind) -> None:
        refused = answer(kind, state=self.state, under_way=self.under_way)
        if self.under_way is not None:
            assert isinstance(refused, Busy)
        if refused is not None:
            return
        self.under_way = Operation(kind)
        if kind is not Kind.DRAIN:
            self.intent, self.last_accepted = Intent(kind is not Kind.STOP), kind

    @precondition(lambda self: self.under_way)
    @rule(works=st.booleans())
    def it_is_carried_out(self, works: bool) -> None:
        assert self.under_way is not None
        match self.under_way.kind:
            case Kind.STOP:
                self.state = DOWN
            case Kind.START | Kind.RESTART:
                self.state = UP if works else WorkerState.FAILED
        self.under_way = None

    @precondition(lambda self: self.state is UP)
    @rule()
    def it_dies_too_often(self) -> None:
        self.state = WorkerState.FAILED

    @rule(seconds=st.sampled_from([1.0, 40.0, 700.0]))
    def the_guard_looks(self, seconds: float) -> None:
        self.now += seconds
        if self.under_way is not None:
            return  # it keeps its hands off
        self.intent = next_intent(self.intent, self.state, self.now)
        if should_start(self.intent, self.state, self.now):
            assert self.last_accepted is not Kind.STOP
            self.state = UP

    @invariant()
    def what_was_ordered_is_wanted(self) -> None:
        if self.last_accepted is not None:
            assert self.intent.wanted == (self.last_accepted is not Kind.STOP)

    def teardown(self) -> None:
        """Left alone, it ends as it was wanted."""
        if self.under_way is not None:
            self.it_is_carried_out(works=True)
        for _ in range(3):
            self.the_guard_looks(700.0)
        if self.last_accepted is not None:
            assert self.state is (DOWN if self.last_accepted is Kind.STOP else UP)


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("state", "waits"),
    [(UP, True), (WorkerState.BUSY, True), (WorkerState.STUCK, False), (WorkerState.GHOST, False)],
)
def test_a_worker_that_will_answer_nothing_is_not_waited_for(
    state: WorkerState, waits: bool
) -> None:
    assert (patience_seconds(worker(0, state=state)) > 0) is waits
