# SPDX-License-Identifier: Apache-2.0
import asyncio
from pathlib import Path

import pytest

from gpuwarden.worker.simulated import SimulatedContext
from gpuwarden.worker.waiting import within

TURNS = 12  # of the loop, more than an answer takes from the socket to who waits for it


async def test_what_comes_in_time_is_given() -> None:
    assert await within(60, asyncio.sleep(0, "result")) == "result"


async def test_what_it_raises_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await within(60, fail())


async def test_what_takes_too_long_is_ended() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await within(0, endless())
    assert ended.is_set()


async def test_a_cancellation_that_comes_together_with_the_result_is_not_lost() -> None:
    result = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(60, result))
    await asyncio.sleep(0)
    result.set_result("result")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_who_waits_for_a_simulated_card_can_be_stopped_at_any_turn(tmp_path: Path) -> None:
    """One that goes on would load its model for minutes after it was told to stop."""
    answer = asyncio.Event()
    stopped = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"ok": true}\n')
        answer.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "attach.sock"):
        for turns in range(TURNS):
            answer.clear()
            creating = asyncio.create_task(
                SimulatedContext.create(str(tmp_path / "attach.sock"), "GPU-0", 1, lambda: None)
            )
            await answer.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            if creating.done():
                await creating.result().close()
                continue
            creating.cancel()
            await asyncio.wait([creating])
            assert creating.cancelled(), f"after {turns} turns"
            stopped += 1
    assert 0 < stopped < TURNS
