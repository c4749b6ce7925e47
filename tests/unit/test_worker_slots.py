# SPDX-License-Identifier: Apache-2.0
"""Who joins, who waits and what is told of it: the decisions of an engine with slots."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.engine import SlotEngine
from gpuwarden.worker.slots import Slots, parked
from gpuwarden.worker.telling import PIECES_LIMIT_CHARACTERS, grouped
from tests.waiting_guests import WaitingGuests


class Counting(SlotEngine):
    """Each item is the number of its steps; no more than two join while others run."""

    group = 4

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.groups: list[int] = []

    def may_join(self, items: Any, beside: int) -> bool:
        if beside > 90:
            raise ValueError("never")
        return not beside or len(items) <= 2

    def join(self, slot: int, item: Any) -> None:
        self.rows[slot] = item
        self.groups.append(1)

    def join_all(self, joiners: Any) -> None:
        self.rows.update(joiners)
        self.groups.append(len(joiners))

    def step(self) -> dict[int, Any]:
        self.rows = {slot: left - 1 for slot, left in self.rows.items()}
        return {slot: {} for slot, left in self.rows.items() if left == 0}

    def leave(self, slot: int) -> None:
        self.rows.pop(slot, None)


async def on_gpu(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


async def served(engine: SlotEngine, guests: WaitingGuests, count: int) -> None:
    idle = asyncio.Event()
    slots = Slots(engine, count, guests, on_gpu, lambda busy: None if busy else idle.set())
    slots.advance()
    await idle.wait()


async def test_the_engine_says_how_many_join_while_others_wait_for_the_next_step() -> None:
    engine, guests = Counting(), WaitingGuests([9, 9, 9, 9, 3, 3, 3, 3])
    await served(engine, guests, 8)
    assert engine.groups == [4, 2, 2]
    assert set(guests.answers) == set(range(8))


async def test_whose_caller_goes_while_it_waits_for_a_group_is_not_taken_in() -> None:
    engine, guests = Counting(), WaitingGuests([9, 9, 9, 9, 3, 3, 3])
    guests.gone = {6}
    await served(engine, guests, 8)
    assert engine.groups == [4, 2]
    assert guests.answers[6].kind == "cancelled"


@pytest.mark.parametrize(
    ("limit", "critical", "waits"),
    [(None, False, set()), (2, False, set()), (2, True, {1, 4}), (None, True, set())],
)
def test_on_a_critical_card_the_newest_wait(
    limit: int | None, critical: bool, waits: set[int]
) -> None:
    assert parked([3, 0, 1, 4], set(), limit, critical=critical) == waits


def test_they_go_on_the_oldest_first_as_there_is_room() -> None:
    assert parked([3, 1, 4], {1, 4}, 2, critical=False) == {4}
    assert parked([1, 4], {1, 4}, 2, critical=False) == set()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, PIECES_LIMIT_CHARACTERS))))
def test_pieces_keep_their_order_and_a_record_its_size(told: list[tuple[str, int]]) -> None:
    pieces = [(session, {"text": "x" * size, "n": n}) for n, (session, size) in enumerate(told)]
    groups = grouped(pieces)
    assert [(session, one) for session, several in groups for one in several] == pieces
    for _, several in groups:
        assert sum(len(one["text"]) for one in several) <= PIECES_LIMIT_CHARACTERS
