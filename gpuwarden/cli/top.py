# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden top``: the whole service live on one screen, with keys for what an operator does."""

import argparse
import os
import sys

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.sparkline import ASCII_LEVELS, levels_for
from gpuwarden.cli.status import look_json, looked_up, seconds
from gpuwarden.cli.watch import repeat

EVERY_SECONDS = 1.0  # as often as the supervisor publishes its state
# Nothing can be put anywhere on these; what is no terminal at all has no name.
_CANT_MOVE = frozenset({"", "dumb", "unknown"})
# The console's font, and the hardware terminals, have no eighths of blocks.
_WITHOUT_BLOCKS = ("linux", "vt", "xterm-mono", "ansi", "sun")
_WITHOUT_COLOURS = ("vt", "xterm-mono")
_INSTEAD = "use gpuwarden status, or gpuwarden status --watch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[--every SECONDS] [--json]``."""
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=seconds,
        default=EVERY_SECONDS,
        help=f"look so often (default: {EVERY_SECONDS:g})",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the screen until somebody quits; in JSON, one status a line."""
    if arguments.json:
        repeat(look_json, arguments.every, for_scripts=True)
        return Exit.GOOD
    terminal = _terminal()
    first = looked_up()  # who may not ask is told so before the screen is taken
    # Only now: textual takes longer to load than every other command takes to run.
    from gpuwarden.cli.live.app import Top, World  # noqa: PLC0415
    from gpuwarden.cli.live.details import details  # noqa: PLC0415
    from gpuwarden.cli.live.ordering import carry_out  # noqa: PLC0415
    from gpuwarden.cli.live.reading import past  # noqa: PLC0415

    encoding = sys.stdout.encoding  # now: the screen puts something else in its place
    levels = levels_of(terminal, encoding)
    if terminal.startswith(_WITHOUT_COLOURS):
        os.environ["NO_COLOR"] = "1"
    world = World(
        look=looked_up,
        details=lambda thing, data, columns: details(thing, data, encoding, columns),
        past=past,
        carry_out=carry_out,
        levels=levels,
        every_seconds=arguments.every,
    )
    app = Top(world, first)
    app.run(mouse=False)  # so that the terminal's own selecting and copying go on working
    return app.return_code or Exit.GOOD


def levels_of(terminal: str, encoding: str | None) -> str:
    """The characters to draw charts with on a terminal of this name."""
    return ASCII_LEVELS if terminal.startswith(_WITHOUT_BLOCKS) else levels_for(encoding)


def _terminal() -> str:
    """What the terminal is called. Raises CommandError where there is none to draw on."""
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        text = f"top needs a terminal for its input and its output: {_INSTEAD}"
        raise CommandError(text, Exit.BAD_USE)
    name = os.environ.get("TERM", "")
    if name in _CANT_MOVE:
        text = f"a terminal of the kind {name or 'TERM= (unset)'!r} can't show it: {_INSTEAD}"
        raise CommandError(text, Exit.BAD_USE)
    return name
