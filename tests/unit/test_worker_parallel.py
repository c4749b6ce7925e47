# SPDX-License-Identifier: Apache-2.0
import asyncio
from typing import Any

from gpuwarden.worker.engine import Context, ParallelEngine, RequestError
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.outputs import Answer
from gpuwarden.worker.parallel import Parallel
from gpuwarden.worker.settings import Settings
from gpuwarden.worker.slots import CANCELLED, Guests
from tests.waiting import DEADLINE_SECONDS

SETTINGS = Settings(0, "e", "m", "/run/d", max_batch=2, execution_timeout_seconds=0.2)


class Told(ParallelEngine):
    """Answers with its place, when its item says so."""

    def __init__(self) -> None:
        self.context = Context("m")
        self.limits: list[int | None] = []

    async def answer(self, place: int, item: Any) -> Any:
        if isinstance(item, Exception):
            raise item
        self.tell(place, "a piece")
        await item.wait()
        return {"place": place}

    def limited(self, limit: int | None) -> None:
        self.limits.append(limit)


class Waiting(Guests):
    """Requests in a row, and what came of them."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.next = 0
        self.gone: set[int] = set()
        self.heard: list[int] = []
        self.answers: dict[int, Answer] = {}
        self.answered = asyncio.Event()

    def next_guest(self) -> int | None:
        if self.next == len(self.items):
            return None
        self.next += 1
        return self.next - 1

    def item(self, serial: int) -> Any:
        return self.items[serial]

    def joins(self, serial: int, joining: bool) -> None:
        pass

    def is_awaited(self, serial: int) -> bool:
        return serial not in self.gone

    def hear(self, serial: int, text: str) -> None:
        self.heard.append(serial)

    def was_told(self, serial: int) -> bool:
        return serial in self.heard

    def answer(self, serial: int, answer: Answer, seconds: float) -> None:
        self.answers[serial] = answer
        self.answered.set()

    async def next_answer(self) -> Answer:
        self.answered.clear()
        await asyncio.wait_for(self.answered.wait(), DEADLINE_SECONDS)
        return self.answers[max(self.answers)]


def started(guests: Waiting) -> tuple[Parallel, Told, list[bool]]:
    engine, busy = Told(), list[bool]()
    parallel = Parallel(engine, SETTINGS, guests, busy.append)
    parallel.advance()
    return parallel, engine, busy


async def test_who_is_through_makes_room_for_the_next_in_its_place() -> None:
    first, other, third = (asyncio.Event() for _ in range(3))
    guests = Waiting(first, other, third)
    parallel, _, busy = started(guests)
    assert (len(parallel), guests.next) == (2, 2)
    other.set()
    assert await guests.next_answer() == {"place": 1}
    assert (len(parallel), guests.next, guests.heard) == (2, 3, [0, 1, 2])
    third.set()
    assert await guests.next_answer() == {"place": 1}
    first.set()
    await guests.next_answer()
    assert (busy[0], busy[-1], len(parallel)) == (True, False, 0)


async def test_a_caller_who_leaves_before_its_request_has_begun_is_let_go_all_the_same() -> None:
    guests = Waiting(asyncio.Event())
    parallel, _, _ = started(guests)
    guests.gone.add(0)
    parallel.advance()
    assert await guests.next_answer() == CANCELLED
    assert (len(parallel), guests.heard) == (0, [])


async def test_a_lower_limit_lets_those_that_run_finish_and_the_engine_hears_of_it() -> None:
    first, second, third = (asyncio.Event() for _ in range(3))
    guests = Waiting(first, second, third)
    parallel, engine, _ = started(guests)
    parallel.set_limit(None, "normal")
    parallel.set_limit(1, "alert")
    assert engine.thermal_state == "alert"
    first.set()
    await guests.next_answer()
    assert (len(parallel), guests.next) == (1, 2)
    second.set()
    await guests.next_answer()
    assert (len(parallel), guests.next, engine.limits) == (1, 3, [1])
    await parallel.close()


async def test_what_is_raised_and_what_takes_too_long_fails_alone() -> None:
    guests = Waiting(RequestError("no"), asyncio.Event())
    started(guests)
    await guests.next_answer()
    failure = await guests.next_answer()
    refused = guests.answers[0]
    assert isinstance(refused, Failure)
    assert (refused.kind, refused.message) == ("engine_error", "no")
    assert isinstance(failure, Failure)
    assert failure.kind == "execution_timeout"


async def test_what_still_runs_at_the_end_is_left_to_another_worker() -> None:
    guests = Waiting(asyncio.Event())
    parallel, _, _ = started(guests)
    await parallel.close()
    assert (guests.answers, len(parallel)) == ({}, 0)
