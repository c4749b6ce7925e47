# SPDX-License-Identifier: Apache-2.0
"""Who has room among the durable jobs, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gpuwarden.gateway.buffers import BufferPool
from gpuwarden.gateway.jobs.memory import JobMemory

MIB = 1 << 20


class Working:
    """Jobs that take room until they are told to end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        pool = BufferPool(8 * MIB, loop.call_soon, loop.call_later)  # a half of it is for them
        self.memory = JobMemory(pool)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.inside: dict[str, asyncio.Event] = {}

    async def begin(self, name: str, length: int) -> None:
        self.tasks[name] = asyncio.create_task(self._work(name, length))
        await turns()

    async def end(self, name: str) -> None:
        self.inside[name].set()
        await self.tasks[name]
        await turns()

    async def _work(self, name: str, length: int) -> None:
        async with self.memory.for_work(length):
            self.inside[name] = asyncio.Event()
            await self.inside[name].wait()
            del self.inside[name]


async def turns() -> None:
    """Whatever can go on goes on."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def working() -> AsyncIterator[Working]:
    jobs = Working()
    yield jobs
    for task in jobs.tasks.values():
        task.cancel()
    await asyncio.gather(*jobs.tasks.values(), return_exceptions=True)


async def test_a_large_job_is_not_passed_by_small_ones_however_many_come() -> None:
    async with working() as jobs:
        await jobs.begin("first", 2 * MIB)
        await jobs.begin("large", 8 * MIB)
        await jobs.begin("small", 2 * MIB)
        assert set(jobs.inside) == {"first"}
        await jobs.end("first")
        assert set(jobs.inside) == {"large"}
        await jobs.end("large")
        assert set(jobs.inside) == {"small"}


async def test_small_jobs_work_beside_each_other() -> None:
    async with working() as jobs:
        for name in "abc":
            await jobs.begin(name, 2 * MIB)
        assert set(jobs.inside) == {"a", "b"}


@pytest.mark.parametrize("when", ["while it waits", "as room is freed", "as it has its turn"])
async def test_who_gives_up_waiting_keeps_no_room_and_nobody_out(when: str) -> None:
    async with working() as jobs:
        await jobs.begin("first", 2 * MIB)
        await jobs.begin("large", 8 * MIB)
        await jobs.begin("small", 2 * MIB)
        if when != "while it waits":
            jobs.inside["first"].set()
        if when == "as it has its turn":
            await asyncio.sleep(0)
        jobs.tasks["large"].cancel()
        await turns()
        assert "small" in jobs.inside
        for name in set(jobs.inside):
            await jobs.end(name)
        assert jobs.memory._working == 0
