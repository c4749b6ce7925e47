# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden baseline``: record what the node does, change one thing, record again, compare."""

import argparse
import json
from pathlib import Path

from gpuwarden import names
from gpuwarden.baseline.comparison import compare
from gpuwarden.baseline.recording import Recording
from gpuwarden.baseline.store import StoreError, checked_name, file_of, kept, load
from gpuwarden.chart.baseline import baseline_drawing
from gpuwarden.chart.output import SUFFIXES, PillowMissingError, draw_to_file
from gpuwarden.cli.baseline_screen import (
    compare_document,
    compare_lines,
    frames,
    list_lines,
    show_lines,
)
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import add_door, door_of
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import warn

ACTIONS = {"record": 1, "compare": 2, "show": 1, "list": 0}  # how many names each takes
HERE = {None, "127.0.0.1", "::1", "localhost"}  # None: the local socket
LEAST_SECONDS, LONGEST_SECONDS, DEFAULT_SECONDS = 12.0, 7 * 86400.0, 300.0
_USAGE = """gpuwarden baseline record NAME [--seconds N] [--note TEXT]
                                 [--to FILE] [--json]
       gpuwarden baseline compare A B [--plot FILE] [--json]
       gpuwarden baseline list [--json]
       gpuwarden baseline show NAME [--json]"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    parser.usage = _USAGE
    parser.add_argument("action", choices=list(ACTIONS), help="what to do")
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="a recording, by its name or its file (with a /)"
    )
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=_seconds,
        help=f"how long to record (default: {DEFAULT_SECONDS:.0f})",
    )
    parser.add_argument("--note", metavar="TEXT", help="what is special about it")
    parser.add_argument(
        "--to",
        metavar="FILE",
        type=Path,
        help=f"keep the recording here (default: in {names.BASELINES_DIRECTORY}, as root)",
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw both into this .png or .svg file"
    )
    add_door(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it: 1 where what was recorded or is there can't be used."""
    _check(arguments)
    try:
        if arguments.action == "record":
            return _record(arguments)
        if arguments.action == "compare":
            return _compare(arguments)
        if arguments.action == "show":
            return _show(arguments)
        return _list(arguments)
    except StoreError as error:
        raise CommandError(str(error), Exit.WRONG) from error


def _check(arguments: argparse.Namespace) -> None:
    """Raises CommandError for what doesn't go together."""
    wanted = ACTIONS[arguments.action]
    if len(arguments.names) != wanted:
        what = ("no name", "one name", "two names")[wanted]
        text = f"baseline {arguments.action} takes {what}; found {len(arguments.names)}"
        raise CommandError(text, Exit.BAD_USE)
    for option in ("seconds", "note", "to"):
        if getattr(arguments, option) is not None and arguments.action != "record":
            raise CommandError(f"--{option} goes with record", Exit.BAD_USE)
    if arguments.plot is not None:
        if arguments.action != "compare":
            raise CommandError("--plot goes with compare", Exit.BAD_USE)
        if arguments.plot.suffix.lower() not in SUFFIXES:
            allowed = " or ".join(SUFFIXES)
            text = f"--plot {arguments.plot}: the file's name must end in {allowed}"
            raise CommandError(text, Exit.BAD_USE)
    if arguments.action == "record":
        try:
            checked_name(arguments.names[0])
        except StoreError as error:
            raise CommandError(str(error), Exit.BAD_USE) from error


def _record(arguments: argparse.Namespace) -> int:
    # Only now: what it reads takes as long to load as all the rest.
    from gpuwarden.cli.baseline_record import Asked, record  # noqa: PLC0415
    from gpuwarden.metrics.sources import Places  # noqa: PLC0415

    door = door_of(arguments)
    if door.hostname not in HERE:
        text = f"{door.url} is another machine: record on the node itself, whose heat it is"
        raise CommandError(text, Exit.BAD_USE)
    name = arguments.names[0]
    file = arguments.to or file_of(name, names.BASELINES_DIRECTORY)
    seconds = arguments.seconds or DEFAULT_SECONDS
    asked = Asked(name, arguments.note or "", seconds, file)
    recording = record(door, asked, Places())
    if arguments.json:
        print(json.dumps({"schema": 1, "name": name, "file": str(file)}, indent=2))
    else:
        print("\n".join([*show_lines(recording), "", f"kept in {file}"]))
    if not recording.answered:
        warn("nothing was answered meanwhile: only heat, power and memory can be compared")
        return Exit.WRONG
    return Exit.GOOD


def _compare(arguments: argparse.Namespace) -> int:
    comparison = compare(*(_loaded(name) for name in arguments.names))
    for warning in comparison.warnings:
        warn(warning)
    if arguments.plot is not None:
        drawing = baseline_drawing(comparison.a.name, comparison.b.name, frames(comparison))
        try:
            draw_to_file(drawing, arguments.plot)
        except PillowMissingError as error:
            raise CommandError(str(error), Exit.WRONG) from error
        except OSError as error:
            text = f"{arguments.plot} can't be written: {error.strerror}"
            raise CommandError(text, Exit.WRONG) from error
    if arguments.json:
        print(json.dumps(compare_document(comparison), indent=2))
    else:
        print("\n".join(compare_lines(comparison)))
    return Exit.GOOD


def _show(arguments: argparse.Namespace) -> int:
    recording = _loaded(arguments.names[0])
    if arguments.json:
        print(recording.model_dump_json(indent=2))
    else:
        print("\n".join(show_lines(recording)))
    return Exit.GOOD


def _list(arguments: argparse.Namespace) -> int:
    found = kept(names.BASELINES_DIRECTORY)
    if arguments.json:
        document = [
            {
                "name": each.name,
                "note": each.recording.note if each.recording else "",
                "started_unix_microseconds": (
                    each.recording.started_unix_microseconds if each.recording else None
                ),
                "complete": each.recording.is_complete if each.recording else False,
                "problem": each.problem,
            }
            for each in found
        ]
        print(json.dumps({"schema": 1, "recordings": document}, indent=2))
    else:
        print("\n".join(list_lines(found)))
    return Exit.GOOD


def _loaded(name: str) -> Recording:
    try:
        return load(file_of(name, names.BASELINES_DIRECTORY))
    except StoreError as error:
        raise CommandError(str(error), Exit.WRONG) from error


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not LEAST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"from {LEAST_SECONDS:g} s to {LONGEST_SECONDS / 86400:.0f} days; found {word!r}"
        )
    return seconds
