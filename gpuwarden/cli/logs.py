# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden logs``: what the journal has of the service, of a worker, of a card, of an event."""

import argparse
import difflib
import os

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.words import whole_number
from gpuwarden.systemd.events import Event

LINES = 50
OURS = "SYSLOG_IDENTIFIER=gpuwarden"  # gpuwarden.systemd.journal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[-f] [-x] [-n LINES] [--worker N | --gpu N] [--event E] [--json]``."""
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        "--worker", metavar="N", type=_worker, help="of worker N: its unit, and what is said of it"
    )
    whose.add_argument(
        "--gpu", metavar="N", type=_gpu, help="of card N: its guards, and what is said of it"
    )
    parser.add_argument("--event", metavar="E", type=_event, help="only this event, such as xid")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "-x", "--explain", action="store_true", help="with the catalogue's explanation of events"
    )
    parser.add_argument(
        *("-n", "--lines"),
        metavar="LINES",
        type=_lines,
        default=LINES,
        help=f"the last so many entries (default: {LINES})",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Become journalctl."""
    words = command(arguments)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        message = f"journalctl can't be run ({error.strerror}); it belongs to systemd"
        raise CommandError(message, Exit.UNREACHABLE) from error


def command(arguments: argparse.Namespace) -> list[str]:
    """The command line. Every part of it is an option of ours or a checked number or name."""
    words = ["journalctl", "--no-pager", f"--lines={arguments.lines}"]
    words += ["--follow"] if arguments.follow else []
    words += ["--catalog"] if arguments.explain else []
    words += ["--output=json"] if arguments.json else []
    return words + matches(arguments.worker, arguments.gpu, arguments.event)


def matches(worker: int | None, gpu: int | None, event: str | None) -> list[str]:
    """journalctl's matches; "+" parts alternatives."""
    if event is not None:
        of_whom = [f"WORKER={worker}"] if worker is not None else []
        of_whom += [f"GPU={gpu}"] if gpu is not None else []
        return [OURS, f"GPUWARDEN_EVENT={event}", *of_whom]
    if worker is not None:
        return _of_units([names.worker_unit(worker)], f"WORKER={worker}")
    if gpu is not None:
        return _of_units([names.thermal_unit(gpu), names.scan_unit(gpu)], f"GPU={gpu}")
    return ["--unit=medgemma-*"]


def _of_units(units: list[str], field: str) -> list[str]:
    """What the units' processes say, what systemd says of them, and what our others do."""
    alternatives = [[OURS, field]]
    for unit in units:
        alternatives += [[f"_SYSTEMD_UNIT={unit}"], ["_PID=1", f"UNIT={unit}"]]
    words = [word for each in alternatives for word in ("+", *each)]
    return words[1:]


def _worker(word: str) -> int:
    return _number(word, "a worker is named by its number")


def _gpu(word: str) -> int:
    return _number(word, "a card is named by its index")


def _lines(word: str) -> int:
    return _number(word, "LINES is a whole number")


def _number(word: str, what: str) -> int:
    try:
        return whole_number(word, what)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _event(word: str) -> str:
    known = sorted(event.label for event in Event)
    if word in known:
        return word
    near = difflib.get_close_matches(word, known, 3) or known
    raise argparse.ArgumentTypeError(f"there is no event {word!r}; there are: {', '.join(near)}")
