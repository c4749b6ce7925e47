# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden reap PID``: end a process that holds a card's memory."""

import argparse
import json

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.orders import order
from gpuwarden.cli.words import whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``PID [--json]``."""
    parser.add_argument(
        "pid", metavar="PID", type=_pid, help="one of those that gpuwarden orphans lists"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Have the service end it, and say what came free."""
    freed_bytes = _freed(arguments.pid)
    if arguments.json:
        print(json.dumps({"pid": arguments.pid, "freed_bytes": freed_bytes}, indent=2))
    else:
        print(f"PID {arguments.pid} is gone: freed {freed_bytes / 2**20:.0f} MiB")
    return Exit.GOOD


def _freed(pid: int) -> int:
    answer = order("ReapOrphan", "u", str(pid), action=names.REAP_ACTION)
    try:
        return int(answer[0])
    except (LookupError, TypeError, ValueError) as error:
        message = f"the service's answer is not this command's version of one ({error})"
        raise CommandError(message, Exit.WRONG) from error


def _pid(word: str) -> int:
    try:
        return whole_number(word, "a process is named by its PID", smallest=1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
