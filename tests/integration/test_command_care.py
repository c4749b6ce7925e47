# SPDX-License-Identifier: Apache-2.0
"""How a worker looks after the server that it runs, seen without a worker around it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gpuwarden.worker.engine import Context, Surroundings
from gpuwarden.worker.engines.command import engine as module
from gpuwarden.worker.engines.command import readiness
from gpuwarden.worker.engines.command.engine import Command
from gpuwarden.worker.engines.command.process import ServerProcess
from tests.integration.command_server import command_settings
from tests.waiting import DEADLINE_SECONDS

LOOK_SECONDS = 0.02


class Around:
    """What a worker would be told."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.figures: asyncio.Queue[dict[str, float]] = asyncio.Queue()
        self.on_card: list[bool | None] = []
        self.shown: list[str] = []

    def surroundings(self) -> Surroundings:
        return Surroundings(self.fail, self.is_on_card, self.shown.append, self.figures.put_nowait)

    def fail(self, why: str) -> None:
        if not self.failed.done():
            self.failed.set_result(why)

    def is_on_card(self) -> bool | None:
        return self.on_card.pop(0) if len(self.on_card) > 1 else self.on_card[0]


@asynccontextmanager
async def opened(around: Around, *arguments: str, **options: Any) -> AsyncIterator[Command]:
    """The engine with its server, on GPU 0."""
    table = command_settings(*arguments, **options)["options"]
    command = Command()
    command.context = Context("m", table, gpu_index=0)
    command.load(command.context)
    try:
        await asyncio.wait_for(command.open(around.surroundings()), 20)
        yield command
    finally:
        await command.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", LOOK_SECONDS)
    monkeypatch.setattr(module, "ILL_SECONDS", 3 * LOOK_SECONDS)
    monkeypatch.setattr(readiness, "LOOK_SECONDS", LOOK_SECONDS)


@pytest.mark.usefixtures("quick")
async def test_a_server_that_is_ill_for_long_ends_its_worker() -> None:
    around = Around()
    around.on_card = [True]
    async with opened(around) as command:
        item = memoryview(b'{"messages": [{"content": "ill"}]}')
        assert (await command.answer(0, item))["text"] == "ill"
        why = await asyncio.wait_for(around.failed, DEADLINE_SECONDS)
    assert why.startswith("its server gave no answer at port")


@pytest.mark.usefixtures("quick")
async def test_it_waits_for_the_card_as_long_as_the_scan_denies_and_not_for_ever_if_none_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "SCAN_PATIENCE_SECONDS", 2 * LOOK_SECONDS)
    denied, silent = Around(), Around()
    denied.on_card = [None, *([False] * 10), True]
    silent.on_card = [None]
    async with opened(denied), opened(silent):
        assert denied.on_card == [True]
        assert "waiting for it to be on the card" in denied.shown[-1]


@pytest.mark.usefixtures("quick")
async def test_figures_are_asked_for_until_there_are_none() -> None:
    around = Around()
    around.on_card = [True]
    async with opened(around):
        assert (await asyncio.wait_for(around.figures.get(), DEADLINE_SECONDS))["waiting"] == 2
    bare = Around()
    bare.on_card = [True]
    async with opened(bare, metrics_path="/none"):
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert bare.figures.empty()


@pytest.mark.usefixtures("quick")
async def test_a_server_without_a_page_is_ready_when_its_port_is_open() -> None:
    async with opened(Around(), ready_path="", wait_for_gpu=False) as command:
        assert not command.options.ready_path


async def test_what_a_server_says_is_read_even_where_nobody_hears_it() -> None:
    """A full pipe would stop it."""
    talk = "import sys; [print('x' * 1000) for _ in range(300)]; sys.stdout.flush()"
    process = await ServerProcess.start([sys.executable, "-c", talk], {})
    process.quiet = True
    await asyncio.wait_for(process.ended(), DEADLINE_SECONDS)
    assert process.end_text == f"its server (PID {process.pid}) ended with status 0"
    await process.end()
