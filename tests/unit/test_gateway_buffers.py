# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Callable

import pytest

from gpuwarden.gateway.buffers import (
    SCRUB_STEP_BYTES,
    Buffer,
    BufferPool,
    class_bytes,
    largest_class_bytes,
)

MIB = 1 << 20


class Turns:
    """The event loop's later turns, run when the test says."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def run(self) -> int:
        turns = 0
        while self.waiting:
            self.waiting.pop(0)()
            turns += 1
        return turns


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
    pool = BufferPool(4 * MIB, Turns().call_soon)
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
    pool = BufferPool(64 * MIB, turns.call_soon)
    buffer = held(pool, 16 * MIB)
    buffer.view[:] = b"\xff" * (16 * MIB)
    pool.release(buffer)
    assert turns.run() == 16 * MIB // SCRUB_STEP_BYTES
    again = held(pool, 9 * MIB)
    assert again is buffer
    assert not any(again.view)


def test_a_buffer_wanted_before_its_turn_is_zeroed_at_once() -> None:
    turns = Turns()
    pool = BufferPool(64 * MIB, turns.call_soon)
    buffer = held(pool, 3 * MIB)
    buffer.view[: 3 * MIB] = b"\xff" * (3 * MIB)
    pool.release(buffer)
    again = held(pool, 4 * MIB)
    assert again is buffer
    assert not any(again.view)
    turns.run()
    assert pool.in_use_bytes == 4 * MIB


def test_a_buffer_stays_until_its_last_holder_lets_go() -> None:
    turns = Turns()
    pool = BufferPool(64 * MIB, turns.call_soon)
    buffer = held(pool, MIB)
    pool.hold(buffer)
    pool.release(buffer)
    assert turns.run() == 0
    assert held(pool, MIB) is not buffer
    pool.release(buffer)
    assert turns.run() == 1


def test_condemned_buffers_are_not_used_again() -> None:
    turns = Turns()
    pool = BufferPool(64 * MIB, turns.call_soon)
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
    loop = asyncio.get_running_loop()
    pool = BufferPool(16 * MIB, loop.call_soon_threadsafe, beside=True)
    for _ in range(3):
        first, second = held(pool, 8 * MIB), held(pool, 8 * MIB)
        for buffer in (first, second):
            assert not any(buffer.view)
            buffer.view[:] = b"\xff" * (8 * MIB)
            pool.release(buffer)
        await asyncio.sleep(0)
    assert pool.total_bytes == 16 * MIB
    pool.close()
    assert pool.total_bytes == 0


async def test_a_buffer_that_is_condemned_while_a_thread_zeroes_it_goes() -> None:
    retired: list[Buffer] = []
    loop = asyncio.get_running_loop()
    pool = BufferPool(16 * MIB, loop.call_soon_threadsafe, retired.append, beside=True)
    buffer = held(pool, 8 * MIB)
    pool.release(buffer)
    await asyncio.sleep(0)
    pool.condemn([buffer.number])
    assert held(pool, 16 * MIB) is not buffer
    assert retired == [buffer]
    pool.close()
