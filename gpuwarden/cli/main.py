# SPDX-License-Identifier: Apache-2.0
"""The gpuwarden command: finds the subcommand, runs it, turns errors into exit codes.

Only the module of the subcommand that was asked for is imported: a command starts in a tenth of
the time that all of them would take.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn, Protocol, cast

from gpuwarden.cli.about import actions_shown, described
from gpuwarden.cli.examples import FIRST, OF, shown
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.output import warn

COMMANDS = {
    "status": "the whole service on one screen",
    "top": "the service live and full-screen, with keys for orders",
    "gpus": "the cards: heat, power, memory, state",
    "thermal": "how each card is kept cool, its last hour, and orders to its guard",
    "workers": "the model processes and their state; start, stop, restart or drain them",
    "orphans": "processes that hold a card's memory and are none of a running worker",
    "reap": "end such a process and say what came free",
    "submit": "images, or folders of them, as durable jobs",
    "jobs": "the durable jobs: list, show, cancel, delete, save their results",
    "placement": "which worker runs on which CPUs and memory, and why",
    "simulate": "what a thermal policy makes of a card that is not there",
    "baseline": "record what the node does, change one thing, record again, compare",
    "doctor": "whether this node will serve well, and how to mend what will not",
    "config": "check the configuration",
    "logs": "what the journal has of the service, of a worker, a card or an event",
    "reload": "let the running service take the new configuration",
    "version": "the version of this command",
}
COMPLETING = "_ARGCOMPLETE"  # set by a shell that wants to know what may come next
SUCCESS_HINT = "exit status: 0 good, 1 something is wrong, 2 bad use, 3 service not reachable"


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line, and where to look."""

    def error(self, message: str) -> NoReturn:
        """End the command as bad use."""
        warn(f"{message} ({self.prog} --help)")
        raise SystemExit(Exit.BAD_USE)


class Command(Protocol):
    """What the module ``gpuwarden.cli.<name>`` offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command takes, ``--json`` excepted."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code; raises CommandError."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command, arguments = parse(words)
    try:
        code = command.run(arguments)
        sys.stdout.flush()
    except CommandError as error:
        warn(str(error))
        return error.code
    except BrokenPipeError:  # the reader, say head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.GOOD
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells count
    return code


def parse(words: list[str]) -> tuple[Command, argparse.Namespace]:
    """The command that these words name, and what it makes of them; exits with 2 on bad use."""
    if COMPLETING in os.environ:
        from gpuwarden.cli import completion  # noqa: PLC0415  # Tab alone needs it

        completion.complete(tree(completion.typed())[0])
    parser, commands = tree(words)
    arguments = parser.parse_args(words)
    command = commands.get(arguments.command)
    if command is None:  # argparse has left for any word that is no command
        parser.error("no command")
    return command, arguments


def tree(words: Iterable[str]) -> tuple[argparse.ArgumentParser, dict[str, Command]]:
    """All commands, of which those among the words have their arguments, and their modules."""
    parser = Parser(
        prog="gpuwarden",
        description="Looks after the model workers of this node.",
        epilog=_epilog(shown(FIRST)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = set(words)
    commands: dict[str, Command] = {}
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=described(name, summary),
            epilog=_epilog(actions_shown(name), shown(OF.get(name, ()))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in asked:
            commands[name] = cast(Command, importlib.import_module(f"gpuwarden.cli.{name}"))
            commands[name].add_arguments(subparser)
    return parser, commands


def _epilog(*parts: str) -> str:
    return "\n\n".join(part for part in (*parts, SUCCESS_HINT) if part)
