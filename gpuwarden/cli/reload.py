# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden reload``: the running service takes the new configuration, or says who did not."""

import argparse
from pathlib import Path

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.working import working
from gpuwarden.control.requests import RELOAD, ReloadAnswer
from gpuwarden.control.socket import ControlError, ControlUnreachableError, ask
from gpuwarden.text import one_line

TIMEOUT_SECONDS = 60.0  # a dozen components with 5 s each at worst


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reload and wait for the outcome; 1 when somebody kept the old settings."""
    answer = request_reload(names.GUARD_CONTROL_SOCKET)
    if arguments.json:
        print(answer.model_dump_json(indent=2))
    else:
        print("\n".join(outcome(answer)))
    return Exit.GOOD if answer.is_complete else Exit.WRONG


def request_reload(path: Path) -> ReloadAnswer:
    """Ask the guard at this socket to reload.

    :raises CommandError: not allowed, not running, or it failed.
    """
    try:
        with working("waiting for every part to take the settings"):
            answer = ask(path, {"request": RELOAD}, TIMEOUT_SECONDS)
        return ReloadAnswer.model_validate(answer)
    except ControlUnreachableError as error:
        if error.denied:
            message = f"{error}: only root may reload (sudo gpuwarden reload)"
        else:
            message = f"{names.GUARD_UNIT} does not answer: {error} (gpuwarden status)"
        raise CommandError(message, Exit.UNREACHABLE) from error
    except ControlError as error:
        raise CommandError(f"not reloaded: {error} (gpuwarden logs -n 20)", Exit.WRONG) from error
    except ValueError as error:
        message = "the service's answer is of another version; after an upgrade: "
        raise CommandError(f"{message}systemctl restart {names.GUARD_UNIT}", Exit.WRONG) from error


def outcome(answer: ReloadAnswer) -> list[str]:
    """What came of it, for people."""
    lines = [*answer.problems]
    if answer.problems:
        lines.append("nothing was changed: the service keeps its settings")
    lines += [f"{name} keeps its old settings: {why}" for name, why in answer.kept.items()]
    if answer.applied:
        lines.append(f"new settings taken by: {', '.join(answer.applied)}")
    if answer.restart:
        units = " ".join(names.worker_unit(number) for number in answer.restart)
        which = ", ".join(map(str, answer.restart))
        whom = f"worker {which} runs" if len(answer.restart) == 1 else f"workers {which} run"
        lines.append(f"{whom} by former settings until restarted: systemctl restart {units}")
    lines += [f"note: {note}" for note in answer.notes]
    return [one_line(line) for line in lines] or ["nothing to change"]
