# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.gateway.buffers import (
    SCRUB_AFTER_SECONDS,
    SCRUB_STEP_BYTES,
    Buffer,
    BufferPool,
    class_bytes,
    largest_class_bytes,
)

MIB = 1 << 20
DEADLINE_SECONDS = 30.0


class Turns:
    """The event loop's later turns, run when the test says."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        assert seconds == SCRUB_AFTER_SECONDS
        self.waiting.append(function)

    def pool(self, limit_bytes: int = 64 * MIB) -> BufferPool:
        return BufferPool(limit_bytes, self.call_soon, self.call_later)

    def run(self) -> int:
        turns = 0
        while self.waiting:
            self.waiting.pop(0)()
            turns += 1
        return turns


def beside(limit_bytes: int, on_retired: Callable[[Buffer], None] = lambda one: None) -> BufferPool:
    """A pool whose threads zero, on the running loop, in its next turn."""
    loop = asyncio.get_running_loop()

    def later(seconds: float, function: Callable[[], None]) -> None:
        loop.call_soon(function)

    return BufferPool(limit_bytes, loop.call_soon_threadsafe, later, on_retired, beside=True)


def held(pool: BufferPool, length: int) -> Buffer:
    buffer = pool.acquire(length)
    assert buffer is not None
    return buffer


@pytest.mark.parametrize(
    ("length", "size"), [(1, MIB), (MIB, MIB), (MIB + 1, 2 * MIB), (33 * MIB, 64 * MIB)]
)
def test_buffers_come_in_powers_of_two(length: int, size: int) -> None:
    assert class_bytes(length) == size


@pytest.mark.parametrize(
    ("pool_bytes", "largest"), [(MIB - 1, 0), (MIB, MIB), (512 * MIB - 1, 256 * MIB)]
)
def test_no_body_is_larger_than_the_pools_largest_buffer(pool_bytes: int, largest: int) -> None:
    assert largest_class_bytes(pool_bytes) == largest


def test_the_pool_never_exceeds_its_limit() -> None:
    pool = Turns().pool(4 * MIB)
    first, second = held(pool, 2 * MIB), held(pool, MIB)
    assert pool.acquire(2 * MIB) is None
    third = held(pool, MIB)
    assert (pool.total_bytes, pool.in_use_bytes) == (4 * MIB, 4 * MIB)
    for buffer in (first, second, third):
        pool.release(buffer)
    assert held(pool, 4 * MIB).size == 4 * MIB
    assert pool.total_bytes == 4 * MIB


def test_a_buffer_is_zeroed_in_steps_before_anybody_else_gets_it() -> None:
    turns = Turns()
    pool = turns.pool()
    buffer = held(pool, 16 * MIB)
    buffer.view[:] = b"\xff" * (16 * MIB)
    pool.release(buffer)
    assert turns.run() == 16 * MIB // SCRUB_STEP_BYTES
    again = held(pool, 9 * MIB)
    assert again is buffer
    assert not any(again.view)


def test_a_buffer_wanted_before_its_turn_has_nothing_behind_the_new_body() -> None:
    turns = Turns()
    pool = turns.pool()
    buffer = held(pool, 4 * MIB)
    buffer.view[:] = b"\xff" * (4 * MIB)
    pool.release(buffer)
    again = held(pool, 3 * MIB)
    assert again is buffer
    assert not any(again.view[3 * MIB :])
    turns.run()
    assert pool.in_use_bytes == 4 * MIB
    pool.release(again)  # the new body broke off: what was there before is zeroed with it
    turns.run()
    assert not any(buffer.view)


def test_a_clean_buffer_is_taken_where_the_other_had_much_to_be_zeroed() -> None:
    turns = Turns()
    pool = turns.pool()
    clean, used = held(pool, 16 * MIB), held(pool, 16 * MIB)
    pool.release(clean)
    turns.run()
    pool.release(used)
    assert held(pool, 16 * MIB - SCRUB_STEP_BYTES - 1) is clean
    assert held(pool, 9 * MIB) is used  # the only one that is left


def test_the_buffer_that_was_used_last_is_taken_first() -> None:
    pool = Turns().pool()
    first, second = held(pool, MIB), held(pool, MIB)
    pool.release(second)
    pool.release(first)
    assert [held(pool, MIB), held(pool, MIB)] == [first, second]


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("acquire"), st.integers(1, 4 * MIB), st.booleans()),
            st.tuples(st.just("release"), st.integers(0, 9), st.booleans()),
            st.tuples(st.just("turns"), st.integers(1, 3), st.booleans()),
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=60)
def test_behind_a_body_there_is_never_anybody_elses(
    steps: list[tuple[str, int, bool]],
) -> None:
    turns = Turns()
    pool = turns.pool(8 * MIB)
    lent: list[Buffer] = []
    known: dict[int, Buffer] = {}
    pool.on_retired = lambda buffer: known.__delitem__(buffer.number)
    for what, number, is_whole in steps:
        if what == "acquire" and (buffer := pool.acquire(number)) is not None:
            known[buffer.number] = buffer
            assert bytes(buffer.view[number:]) == bytes(buffer.size - number)
            came = number if is_whole else number // 2  # the others break off
            buffer.view[:came] = b"\xff" * came
            lent.append(buffer)
        elif what == "release" and lent:
            pool.release(lent.pop(number % len(lent)))
        elif what == "turns":
            for turn in [turns.waiting.pop(0) for _ in range(min(number, len(turns.waiting)))]:
                turn()
    for buffer in lent:
        pool.release(buffer)
    turns.run()
    for buffer in known.values():
        assert bytes(buffer.view) == bytes(buffer.size)


def test_a_buffer_stays_until_its_last_holder_lets_go() -> None:
    turns = Turns()
    pool = turns.pool()
    buffer = held(pool, MIB)
    pool.hold(buffer)
    pool.release(buffer)
    assert turns.run() == 0
    assert held(pool, MIB) is not buffer
    pool.release(buffer)
    assert turns.run() == 1


def test_condemned_buffers_are_not_used_again() -> None:
    turns = Turns()
    pool = turns.pool()
    retired: list[int] = []
    pool.on_retired = lambda buffer: retired.append(buffer.number)
    used, clean, dirty = held(pool, MIB), held(pool, 2 * MIB), held(pool, 4 * MIB)
    pool.release(clean)
    turns.run()
    pool.release(dirty)
    pool.condemn([used.number, clean.number, dirty.number])
    assert sorted(retired) == [clean.number, dirty.number]
    pool.release(used)
    assert len(retired) == 3
    assert pool.total_bytes == 0
    turns.run()
    assert held(pool, MIB).number > dirty.number


async def test_threads_zero_a_buffer_before_anybody_else_gets_it() -> None:
    pool = beside(16 * MIB)
    for _ in range(3):
        first, second = held(pool, 5 * MIB), held(pool, 5 * MIB)
        for buffer in (first, second):
            assert not any(buffer.view[5 * MIB :])
            buffer.used_bytes = buffer.size  # it grew
            buffer.view[:] = b"\xff" * buffer.size
            pool.release(buffer)
        await asyncio.sleep(0)  # a thread has the one now, the other waits
    assert pool.total_bytes == 16 * MIB
    async with asyncio.timeout(DEADLINE_SECONDS):
        while first.used_bytes or second.used_bytes:  # noqa: ASYNC110 - a thread's
            await asyncio.sleep(0.01)
    assert not any(first.view) and not any(second.view)
    pool.close()
    assert pool.total_bytes == 0


async def test_a_buffer_that_is_condemned_while_a_thread_zeroes_it_goes() -> None:
    retired: list[Buffer] = []
    pool = beside(16 * MIB, retired.append)
    buffer = held(pool, 8 * MIB)
    pool.release(buffer)
    await asyncio.sleep(0)
    pool.condemn([buffer.number])
    assert held(pool, 16 * MIB) is not buffer
    assert retired == [buffer]
    pool.close()
