"""``gpuwarden workers``: the model processes."""

import argparse
import json
from collections.abc import Sequence

from gpuwarden import names
from gpuwarden.cli.exits import Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import UNKNOWN, coloured, duration, fitted, table, unix_now, warn
from gpuwarden.cli.service import get_status_or_last
from gpuwarden.control.states import WorkerStatus
from gpuwarden.values import WorkerState

BAD_STATES = frozenset({WorkerState.FAILED, WorkerState.STUCK, WorkerState.GHOST})
_READY_STATES = frozenset({WorkerState.READY, WorkerState.BUSY})
_HEADER = (
    *("WORKER", "STATE", "GPU", "CPUS", "PRIORITY", "PID"),
    *("REQUESTS", "FAILED", "RESTARTS", "FOR"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the workers; 1 when one has failed, is stuck or a ghost."""
    known = get_status_or_last(names.GUARD_STATE_FILE)
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
    """The workers as a table, and the last error of those that have one, or what else is to say."""
    if not workers:
        return ["  no workers planned"]
    header, *rows = table(_HEADER, [_row(worker, now_unix_seconds) for worker in workers])
    lines = [fitted(header)]
    for worker, row in zip(workers, rows, strict=True):
        bad = worker.state in BAD_STATES
        kind = "bad" if bad else "" if worker.state in _READY_STATES else "warn"
        lines.append(coloured(fitted(row), kind))
    said = [(worker, worker.last_error or worker.reason) for worker in workers]
    return lines + [fitted(f"  worker {worker.number}: {text}") for worker, text in said if text]


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
        duration(now_unix_seconds - worker.since / 1e6),
    )
