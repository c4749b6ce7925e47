# SPDX-License-Identifier: Apache-2.0
"""The thread that has the card: what it tells the loop comes in the order in which it did it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from gpuwarden.worker.callers import Callers
from gpuwarden.worker.gpu import GpuThread

END_SECONDS = 10.0


@pytest.fixture
async def gpu() -> AsyncIterator[GpuThread]:
    thread = GpuThread()
    yield thread
    assert thread.end(END_SECONDS)


async def test_no_answer_overtakes_its_pieces_when_the_loop_looks_by_itself(
    gpu: GpuThread,
) -> None:
    told: list[str] = []
    is_done = threading.Event()
    callers = Callers(gpu.pass_on, lambda job, text: told.append(text), [SimpleNamespace()])

    def speak() -> str:
        for word in ("No ", "pneumothorax."):
            callers.hear(0, word)
        return "end"

    def is_quick() -> bool:
        is_done.set()
        return True

    gpu.submit(lambda result, error: told.append(result), speak, may_wait=is_quick)
    # The loop does something else all the while, and then looks before it has its next turn.
    assert is_done.wait(END_SECONDS)
    gpu.catch_up()
    assert told == ["No ", "pneumothorax.", "end"]


async def test_what_may_run_here_does_so_only_while_the_thread_has_nothing(gpu: GpuThread) -> None:
    ran: list[str] = []
    settled: list[object] = []
    may_go_on = threading.Event()

    def run(wait: threading.Event | None = None) -> None:
        if wait is not None:
            wait.wait(END_SECONDS)
        ran.append(threading.current_thread().name)

    def settle(result: object, error: object) -> None:
        settled.append(error)

    gpu.submit(settle, run, here=True)
    assert ran == ["MainThread"]
    gpu.catch_up()
    gpu.submit(settle, run, may_go_on)
    gpu.submit(settle, run, here=True)
    assert ran == ["MainThread"]
    may_go_on.set()
    await gpu.run(run)
    assert ran == ["MainThread", "gpu", "gpu", "gpu"]
    gpu.submit(settle, run, here=True)
    assert ran[-1] == "MainThread"


async def test_what_fails_here_is_told_in_the_loop(gpu: GpuThread) -> None:
    told = asyncio.get_running_loop().create_future()

    def fail() -> None:
        raise ValueError("no")

    gpu.submit(lambda result, error: told.set_result(error), fail, here=True)
    assert isinstance(await told, ValueError)
