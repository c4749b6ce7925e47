# SPDX-License-Identifier: Apache-2.0
"""The terminal side of ``gpuwarden top``, the only importer of textual.

It hands keys to :mod:`session`, what was seen to :mod:`views`, and paints the lines that changed.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from gpuwarden.chart.series import Moment
from gpuwarden.cli.known import Known
from gpuwarden.cli.live.board import Seen, Thing, things
from gpuwarden.cli.live.cards import Paper
from gpuwarden.cli.live.lines import Line, Size
from gpuwarden.cli.live.reading import Look, Reading
from gpuwarden.cli.live.session import Order, Session, press
from gpuwarden.cli.live.trail import Trail, longer, with_past
from gpuwarden.cli.live.views import screen
from gpuwarden.cli.output import unix_now
from gpuwarden.control.states import GuardData

# The terminal's own sixteen colours: they suit its background, and few terminals have fewer.
_STYLES = {
    "": Style(),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "strong": Style(bold=True),
}
_CHOSEN = Style(reverse=True)


@dataclass(frozen=True)
class World:
    """All that the screen is given: where it looks, and what does what it is asked for.

    :ivar details: all lines of a card or worker, in so many columns.
    :ivar past: a card's last minutes.
    :ivar carry_out: gives an order and says how it goes on.
    :ivar levels: the characters of the charts, from low to high.
    """

    look: Look
    details: Callable[[Thing, GuardData, int], Sequence[Line]]
    past: Callable[[int], Sequence[Moment]]
    carry_out: Callable[[Order, Callable[[str, str], None]], None]
    levels: str
    every_seconds: float
    now: Callable[[], float] = unix_now


class Beside(Message):
    """Something was done beside the screen; ``apply`` puts it on it."""

    def __init__(self, apply: Callable[[], None]) -> None:
        super().__init__()
        self.apply = apply


class Board(Widget):
    """Lines of text, of which those that changed are painted."""

    DEFAULT_CSS = "Board { width: 100%; height: 100%; }"

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []

    def show(self, lines: list[Line]) -> None:
        """These lines from now on."""
        former, self.lines = self.lines, lines
        if len(former) != len(lines):
            self.refresh()
            return
        for row, (before, after) in enumerate(zip(former, lines, strict=True)):
            if before != after:
                self.refresh(Region(0, row, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """One row of the screen."""
        if y >= len(self.lines):
            return Strip.blank(self.size.width)
        shown = self.lines[y]
        over = _CHOSEN if shown.chosen else Style()
        segments = [Segment(piece.text, _STYLES[piece.kind] + over) for piece in shown.pieces]
        return Strip(segments).adjust_cell_length(self.size.width, over)


class Top(App[None]):
    """The full-screen view."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "Screen { layers: base; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("ctrl+c", "quit", "Quit"),
        ("ctrl+z", "suspend_process", "Suspend"),
    ]

    def __init__(self, world: World, first: Known, trail: Trail | None = None) -> None:
        super().__init__(ansi_color=True)
        self._world = world
        self._session = Session(chosen=next(iter(things(first.data)), None))
        self._seen = Seen(first, longer(trail or {}, first.data.gpus, world.now()))
        self._details: Sequence[Line] = ()
        self.board = Board()
        self._reading = Reading(
            world.look,
            world.every_seconds,
            lambda known, error: self._put(lambda: self._looked(known, error)),
        )

    def compose(self) -> ComposeResult:
        """One widget: what stands where is decided in :mod:`views`."""
        yield self.board

    def on_mount(self) -> None:
        """Begin to look."""
        # Textual leaves the terminal as it found it when it ends by itself, not when it is killed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        threading.excepthook = self._failed_beside
        self._show()
        for gpu in self._seen.known.data.gpus:
            self._beside(self._ask_past, gpu.index)
        self._reading.begin()

    def on_unmount(self) -> None:
        """No more looks."""
        self._reading.end()
        threading.excepthook = threading.__excepthook__

    def on_resize(self) -> None:
        """The same in another size."""
        self._show()

    def on_beside(self, message: Beside) -> None:
        """What was done beside the screen."""
        message.apply()
        self._show()

    def on_key(self, event: events.Key) -> None:
        """Everything that a key can do."""
        pressed = press(self._session, event.key, self._seen.known.data)
        self._session = pressed.session
        if pressed.quits:
            self.exit()
        if pressed.wants_details and pressed.session.chosen is not None:
            self._details = ()
            self._beside(self._ask_details, pressed.session.chosen)
        if pressed.order is not None:
            self._beside(self._world.carry_out, pressed.order, self._say)
        self._show()

    def _show(self) -> None:
        size = Size(self.size.width, self.size.height)
        paper = Paper(self._world.now(), size.columns, self._world.levels)
        self.board.show(screen(self._seen, self._session, self._details, size, paper))

    def _beside(self, work: Callable[..., None], *arguments: object) -> None:
        """Do what may take long beside the screen; whoever quits doesn't wait for it."""
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _failed_beside(self, failure: threading.ExceptHookArgs) -> None:
        """A fault of ours ends the screen, and is told below it as anywhere else."""
        error = failure.exc_value or RuntimeError("a thread has failed")

        def apply() -> None:
            raise error

        self._put(apply)

    def _put(self, apply: Callable[[], None]) -> None:
        """Change the screen, from any thread; nothing happens once it is closed."""
        if self.is_running:
            self.post_message(Beside(apply))

    def _looked(self, known: Known | None, error: str) -> None:
        """What was seen last; where nothing was, what was seen before and why."""
        if known is None:
            self._seen = replace(self._seen, error=error)
            return
        trail = longer(self._seen.trail, known.data.gpus, self._world.now())
        self._seen = Seen(known, trail)

    def _say(self, text: str, kind: str) -> None:
        def apply() -> None:
            self._session = replace(self._session, message=(text, kind))
            self._reading.again()

        self._put(apply)

    def _ask_details(self, thing: Thing) -> None:
        lines = self._world.details(thing, self._seen.known.data, self.size.width)

        def apply() -> None:
            if self._session.chosen == thing:
                self._details = lines

        self._put(apply)

    def _ask_past(self, gpu_index: int) -> None:
        moments = self._world.past(gpu_index)

        def apply() -> None:
            trail = with_past(self._seen.trail, gpu_index, moments)
            self._seen = replace(self._seen, trail=trail)

        self._put(apply)
