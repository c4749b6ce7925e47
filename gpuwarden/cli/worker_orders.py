# SPDX-License-Identifier: Apache-2.0
"""Has the service start, stop, restart or drain workers, and waits for the end of it."""

import json
import sys
import time
from collections.abc import Callable

from gpuwarden import names
from gpuwarden.cli.busctl import SilentError
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.orders import order
from gpuwarden.cli.output import warn
from gpuwarden.cli.progress import Progress, begun, judge, told
from gpuwarden.cli.service import get_status
from gpuwarden.cli.working import working
from gpuwarden.control.states import GuardData

LOOK_EVERY_SECONDS = 0.5
SILENCE_SECONDS = 15.0  # a restart of the supervisor takes a few; it goes on with what was ordered
_METHODS = {
    "start": "StartWorker",
    "stop": "StopWorker",
    "restart": "RestartWorker",
    "drain": "DrainWorker",
    "rolling-restart": "RollingRestart",
}


def carry_out(action: str, number: int | None, *, wait: bool, as_json: bool) -> int:
    """Give the order, tell how it goes on, and what came of it.

    :param number: of the worker; None: all.
    :raises CommandError: it was refused, failed, or nobody can say what came of it.
    """
    progress = give(action, number)
    if wait:
        with working(f"waiting for the {_what(action, number)}") as sign:

            def say(step: str) -> None:
                sign.clear()
                _say(step)

            progress = followed(progress, _keep_quiet if as_json else say)
    if as_json:
        print(json.dumps(_document(action, number, progress, waited=wait), indent=2))
    elif not wait:
        print(f"{_what(action, number)}: accepted (gpuwarden workers tells how it goes on)")
    elif not progress.failed:
        print("\n".join(progress.outcome))
    if progress.failed and not as_json:
        raise CommandError(progress.failed, Exit.WRONG)
    return Exit.WRONG if progress.failed else Exit.GOOD


def give(action: str, number: int | None) -> Progress:
    """Have an order accepted. Raises CommandError.

    :param number: of the worker; None: all.
    """
    before = get_status()
    arguments = () if number is None else ("u", str(number))
    order(_METHODS[action], *arguments, action=names.MANAGE_WORKERS_ACTION)
    return begun(action, number, before, time.monotonic())


def followed(progress: Progress, say: Callable[[str], None]) -> Progress:
    """Look on until it is done or has failed; ``say`` is told each step of it."""
    while not progress.ended:
        time.sleep(LOOK_EVERY_SECONDS)
        after = judge(progress, _status(), time.monotonic())
        for line in told(progress, after):
            say(line)
        progress = after
    return progress


def _status() -> GuardData:
    """The state, once the service answers: it may be restarted meanwhile."""
    give_up_at = time.monotonic() + SILENCE_SECONDS
    while True:
        try:
            return get_status()
        except SilentError as error:
            if time.monotonic() >= give_up_at:
                message = f"accepted, and nobody says what came of it: {error}"
                raise CommandError(message, Exit.UNREACHABLE) from None
            warn(str(error))
        time.sleep(LOOK_EVERY_SECONDS * 2)


def _document(
    action: str, number: int | None, progress: Progress, *, waited: bool
) -> dict[str, object]:
    return {
        "action": action,
        "worker": number,
        "waited": waited,
        "failed": progress.failed,
        "workers": [
            {"number": each.number, "state": each.state, "main_pid": each.main_pid}
            for each in progress.workers
        ],
    }


def _what(action: str, number: int | None) -> str:
    return action if number is None else f"{action} of worker {number}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _keep_quiet(line: str) -> None:
    """For scripts, the end alone counts."""
