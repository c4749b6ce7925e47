# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden workers``: the model processes, and orders to start, stop, restart or drain them."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json, understood_by
from gpuwarden.cli.output import UNKNOWN, coloured, duration, fitted, table, unix_now, warn
from gpuwarden.cli.service import get_status_or_last
from gpuwarden.cli.words import whole_number
from gpuwarden.control.states import ServerFigures, WorkerStatus
from gpuwarden.values import WorkerState

BAD_STATES = frozenset({WorkerState.FAILED, WorkerState.STUCK, WorkerState.GHOST})
_READY_STATES = frozenset({WorkerState.READY, WorkerState.BUSY})
_HEADER = (
    *("WORKER", "STATE", "GPU", "CPUS", "PRIORITY", "PID"),
    *("REQUESTS", "FAILED", "RESTARTS", "FOR"),
)
ACTIONS = ("start", "stop", "restart", "drain")
ROLLING_RESTART = "rolling-restart"
TERMINAL = Path("-")  # --plot without a file
_USAGE = """gpuwarden workers [-h] [--json]
       gpuwarden workers --memory [--plot [FILE]] [--json]
       gpuwarden workers start|stop|restart|drain N [--no-wait] [--json]
       gpuwarden workers rolling-restart [--no-wait] [--json]"""


@dataclass(frozen=True)
class Asked:
    """The words of the command: what is ordered, "" to look only, and of which worker."""

    action: str = ""
    number: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[--json]``, or an action with ``[--no-wait]``."""
    parser.usage = _USAGE
    parser.set_defaults(asked=Asked())
    parser.add_argument(
        "words", metavar="ACTION", nargs="*", action=understood_by(_understand), help="see below"
    )
    parser.add_argument(
        "--wait",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="of an action: come back when it is done (the default), or once it is accepted",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="show how their memory on the cards stands, and did in the last hour",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        nargs="?",
        const=TERMINAL,
        type=Path,
        help="of --memory: draw the last hour, here or into this .png or .svg file",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the workers, 1 when one has failed, is stuck or a ghost; or carry out an order."""
    asked: Asked = arguments.asked
    if asked.action and (arguments.memory or arguments.plot):
        raise CommandError(f"--memory goes with no action, here {asked.action}", Exit.BAD_USE)
    if arguments.plot and not arguments.memory:
        raise CommandError("--plot draws the workers' memory: --memory --plot", Exit.BAD_USE)
    if asked.action:
        # Only now: a look at the workers needs none of it.
        from gpuwarden.cli.worker_orders import carry_out  # noqa: PLC0415

        return carry_out(asked.action, asked.number, wait=arguments.wait, as_json=arguments.json)
    if arguments.memory:
        from gpuwarden.cli.memory import show  # noqa: PLC0415

        return show(arguments.plot, as_json=arguments.json)
    known = get_status_or_last()
    warn(known.caveat)
    workers = known.data.workers
    if arguments.json:
        print(json.dumps([worker.model_dump(mode="json") for worker in workers], indent=2))
    else:
        print("\n".join(worker_lines(workers, unix_now())))
    if not known.is_live:
        return Exit.UNREACHABLE
    return Exit.WRONG if any(worker.state in BAD_STATES for worker in workers) else Exit.GOOD


def worker_lines(workers: Sequence[WorkerStatus], now_unix_seconds: float) -> list[str]:
    """The workers as a table, and what else is to be said of them."""
    if not workers:
        return ["  no workers planned"]
    header, *rows = table(_HEADER, [_row(worker, now_unix_seconds) for worker in workers])
    lines = [fitted(header)]
    for worker, row in zip(workers, rows, strict=True):
        lines.append(coloured(fitted(row), worker_colour(worker)))
    return lines + worker_notes(workers)


def worker_colour(worker: WorkerStatus) -> str:
    """How a worker's row is painted."""
    if worker.state in BAD_STATES:
        return "bad"
    return "" if worker.state in _READY_STATES else "warn"


def worker_notes(workers: Sequence[WorkerStatus]) -> list[str]:
    """What is being done with each, what is wrong with it, how it ended before, what it says."""
    notes = ((worker.number, worker_note(worker)) for worker in workers)
    return [fitted(f"  worker {number}: {note}") for number, note in notes if note]


def worker_note(worker: WorkerStatus) -> str:
    """What is to be said of one worker beside its figures; mostly nothing."""
    trouble = worker.last_error or worker.reason
    if trouble in worker.last_exit:
        trouble = ""  # it is that very end, which is told with more
    word = "before that" if trouble or worker.operation else "its last end"
    before = f"{word}: {worker.last_exit}" if worker.last_exit else ""
    said = (worker.operation, trouble, before, _server(worker))
    return "; ".join(dict.fromkeys(each for each in said if each))


def _server(worker: WorkerStatus) -> str:
    """What the server that it runs says of itself; empty where it runs none, or that is silent."""
    told = worker.server or ServerFigures()
    parts = (
        (told.running, "{:.0f} running"),
        (told.waiting, "{:.0f} waiting"),
        (told.kv_cache_usage, "{:.0%} of its KV cache in use"),
    )
    known = [form.format(value) for value, form in parts if value is not None]
    return f"its server: {', '.join(known)}" if known else ""


def _row(worker: WorkerStatus, now_unix_seconds: float) -> tuple[str, ...]:
    return (
        str(worker.number),
        worker.state,
        str(worker.gpu),
        worker.cpus or UNKNOWN,
        worker.inference_priority or UNKNOWN,
        str(worker.main_pid) if worker.main_pid else UNKNOWN,
        str(worker.requests),
        str(worker.failures),
        str(worker.restarts),
        duration(now_unix_seconds - worker.since / 1e6) if worker.since else UNKNOWN,
    )


def _understand(words: Sequence[str]) -> Asked:
    """Raises ValueError saying what was found and what would be right."""
    match words:
        case []:
            return Asked()
        case [action, number] if action in ACTIONS:
            return Asked(action, whole_number(number, "a worker is named by its number"))
        case ["rolling-restart"]:
            return Asked(ROLLING_RESTART)
        case [action, *_] if action in ACTIONS:
            raise ValueError(f"{action} takes the number of one worker")
        case ["rolling-restart", *_]:
            raise ValueError("rolling-restart takes all workers; for one: restart N")
    allowed = ", ".join((*ACTIONS, ROLLING_RESTART))
    raise ValueError(f"allowed are {allowed}; found {' '.join(words)!r}")
