# SPDX-License-Identifier: Apache-2.0
"""The screen under textual's own pilot, with states as values."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from textual.pilot import Pilot
from textual.strip import Strip

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.known import Known
from gpuwarden.cli.live.app import Top, World
from gpuwarden.cli.live.lines import line
from gpuwarden.cli.live.session import Order
from gpuwarden.cli.sparkline import BLOCKS
from gpuwarden.control.states import GuardData
from tests.unit.cli.live.scenes import hot_node
from tests.unit.cli.samples import NOW_UNIX_SECONDS, guard


@dataclass
class Node:
    """What the screen looks at, and the orders that it gave."""

    data: GuardData = field(default_factory=hot_node)
    error: str = ""
    fault: Exception | None = None
    orders: list[Order] = field(default_factory=list)

    def look(self) -> Known:
        if self.fault:
            raise self.fault
        if self.error:
            raise CommandError(self.error, Exit.UNREACHABLE)
        return Known(self.data)

    def carry_out(self, order: Order, say: Callable[[str, str], None]) -> None:
        self.orders.append(order)
        say(f"{order.text}: denied, group gpuwarden", "bad")


class Screen:
    def __init__(self, pilot: Pilot[None]) -> None:
        self.pilot = pilot

    @property
    def lines(self) -> list[str]:
        app = self.pilot.app
        assert isinstance(app, Top)
        return [app.board.render_line(y).text.rstrip() for y in range(app.size.height)]

    async def until(self, wanted: Callable[[list[str]], bool]) -> list[str]:
        async with asyncio.timeout(20):
            while not wanted(self.lines):
                await self.pilot.pause()
        return self.lines

    async def shows(self, text: str) -> list[str]:
        return await self.until(lambda lines: any(text in each for each in lines))


@asynccontextmanager
async def screen_of(node: Node, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Screen]:
    world = World(
        look=node.look,
        details=lambda thing, data, columns: [line(f"all of {thing.kind} {thing.number}")],
        past=lambda gpu_index: (),
        carry_out=node.carry_out,
        levels=BLOCKS,
        every_seconds=0.1,
        now=lambda: NOW_UNIX_SECONDS,
    )
    async with Top(world, Known(node.data)).run_test(size=size) as pilot:
        yield Screen(pilot)


@pytest.mark.parametrize("size", [(80, 24), (64, 16), (132, 43), (250, 80)])
async def test_the_node_is_on_the_screen_in_every_size(size: tuple[int, int]) -> None:
    async with screen_of(Node(), size) as screen:
        lines = await screen.shows("GPU 0")
        assert lines[0].startswith("gpuwarden 0.1.0 is DEGRADED")
        assert len(lines) == size[1]


async def test_what_changes_is_shown_by_itself() -> None:
    node = Node()
    async with screen_of(node) as screen:
        await screen.shows("DEGRADED")
        node.data = guard()
        await screen.shows("RUNNING")
        node.error = "no system bus (No such file or directory)"
        await screen.shows("NOTHING NEW: no system bus")
        node.error = ""
        await screen.until(lambda lines: not any("NOTHING NEW" in each for each in lines))


async def test_a_terminal_that_shrinks_and_grows_has_its_screen_back() -> None:
    async with screen_of(Node()) as screen:
        await screen.shows("Cards")
        await screen.pilot.resize_terminal(40, 10)
        await screen.shows("needs 64 x 16")
        await screen.pilot.resize_terminal(100, 30)
        lines = await screen.shows("Cards")
        assert len(lines) == 30


async def test_an_order_is_given_once_it_was_answered_and_its_end_is_told() -> None:
    node = Node()
    async with screen_of(node) as screen:
        await screen.pilot.press("down", "down", "r")
        await screen.shows("Restart worker 0?")
        assert node.orders == []
        await screen.pilot.press("y")
        await screen.shows("restart of worker 0: denied, group gpuwarden")
    assert node.orders == [Order("restart", 0)]


async def test_an_override_is_asked_about() -> None:
    node = Node()
    async with screen_of(node) as screen:
        await screen.pilot.press("o")
        await screen.shows("Cool GPU 0 for 10 min as if it were hot?")
        await screen.pilot.press("plus", "a")
        await screen.shows("override of GPU 0: denied")
    assert node.orders == [Order("override", 0, "alert", 1800)]


async def test_details_help_and_the_way_back() -> None:
    async with screen_of(Node()) as screen:
        await screen.pilot.press("enter")
        await screen.shows("all of gpu 0")
        await screen.pilot.press("escape", "question_mark")
        await screen.shows("this help")
        await screen.pilot.press("escape")
        await screen.shows("Cards")


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_it_quits(key: str) -> None:
    async with screen_of(Node()) as screen:
        await screen.pilot.press(key)
        await screen.pilot.pause()
        assert screen.pilot.app.return_code == 0


async def test_lines_that_stay_are_not_painted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    async with screen_of(node) as screen:
        await screen.shows("DEGRADED")
        app = screen.pilot.app
        assert isinstance(app, Top)
        painted: list[int] = []
        render = app.board.render_line

        def noting(y: int) -> Strip:
            painted.append(y)
            return render(y)

        monkeypatch.setattr(app.board, "render_line", noting)
        node.data = hot_node(reasons=["GPU 0 is in alert", "something else"])
        async with asyncio.timeout(20):
            while not painted:
                await screen.pilot.pause()
        assert set(painted) == {2}


async def test_without_colour_nothing_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with screen_of(Node()) as screen:
        await screen.shows("ALERT")
        strips = screen.pilot.app.screen._compositor.render_strips()
        styles = [segment.style for strip in strips for segment in strip if segment.style]
        assert any(style.bold for style in styles)
        colours = {colour for style in styles for colour in (style.color, style.bgcolor) if colour}
        assert all(colour.is_default for colour in colours)  # the terminal's own


async def test_a_fault_beside_the_screen_is_not_kept_silent() -> None:
    node = Node()
    with pytest.raises(ZeroDivisionError):
        async with screen_of(node) as screen:
            node.fault = ZeroDivisionError()
            async with asyncio.timeout(20):
                while screen.pilot.app.return_code != 1:
                    await screen.pilot.pause()
