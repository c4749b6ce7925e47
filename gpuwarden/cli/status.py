# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden status``: is it healthy, and if not, what now: the whole service on one screen."""

import argparse
import shutil
import sys
from dataclasses import replace

from gpuwarden import names
from gpuwarden.cli.advice import says_refused
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.known import Known
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import coloured, fitted, unix_now, warn
from gpuwarden.cli.service import get_status_or_last
from gpuwarden.cli.status_screen import SCREEN_LINES, clock, screen
from gpuwarden.cli.watch import Look, repeat
from gpuwarden.values import ServiceState

EVERY_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[--watch [SECONDS]] [--json]``."""
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=seconds,
        const=EVERY_SECONDS,
        help=f"again and again, every {EVERY_SECONDS:g} s or as often as said, until Ctrl-C",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the status: 0 only while the service is running with nothing amiss.

    The JSON is the answer of the bus method GetStatus. Watched, it ends well whatever was seen.
    """
    if arguments.watch is not None:
        look = look_json if arguments.json else _look
        repeat(look, arguments.watch, for_scripts=arguments.json)
        return Exit.GOOD
    known = looked_up()
    if arguments.json:
        warn(known.caveat)
        print(known.data.model_dump_json(indent=2))
    else:
        print("\n".join(screen(known, unix_now(), _lines())))
    return exit_code(known)


def looked_up() -> Known:
    """The status; whether a configuration that was refused is right now is looked up beside it.

    :raises CommandError: nothing is known.
    """
    known = get_status_or_last()
    if not any(map(says_refused, known.data.reasons)):
        return known
    # Only now: they take a third as long to load as all the rest.
    from gpuwarden.config import ConfigurationError, load_configuration  # noqa: PLC0415
    from gpuwarden.guard.node import node_rules  # noqa: PLC0415

    try:
        load_configuration(names.CONFIG_FILE, names.CONFIG_DIRECTORY, node_rules())
    except ConfigurationError:
        return known
    return replace(known, is_mended=True)


def exit_code(known: Known) -> Exit:
    """What a script is told."""
    if not known.is_live:
        return Exit.UNREACHABLE
    return Exit.GOOD if known.data.state is ServiceState.RUNNING else Exit.WRONG


def _look() -> Look:
    now = unix_now()
    try:
        first, *others = screen(looked_up(), now, _lines())
        return Look([f"{first}, {clock(now, now)}", *others])
    except CommandError as error:  # nothing is known now; the next look may find something
        return Look([fitted(f"{coloured('gpuwarden', 'bad')}: {error}")])


def look_json() -> Look:
    """The status for a script that looks again and again."""
    try:
        known = get_status_or_last()
    except CommandError as error:
        return Look([], str(error))
    return Look([known.data.model_dump_json()], known.caveat)


def _lines() -> int:
    if not sys.stdout.isatty():
        return SCREEN_LINES
    return max(shutil.get_terminal_size().lines, SCREEN_LINES)


def seconds(word: str) -> float:
    """How often to look, as a command line says it. Raises ArgumentTypeError."""
    try:
        every = float(word)
    except ValueError:
        every = 0.0
    if not 0.5 <= every <= 3600:
        raise argparse.ArgumentTypeError(f"SECONDS is from 0.5 to 3600; found {word!r}")
    return every
