"""``gpuwarden status``: the whole service on one screen."""

import argparse

from gpuwarden import names
from gpuwarden.cli.advice import advice
from gpuwarden.cli.exits import Exit
from gpuwarden.cli.gpus import gpu_lines
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import coloured, fitted, table, unix_now, warn
from gpuwarden.cli.service import Known, get_status_or_last
from gpuwarden.cli.workers import worker_lines
from gpuwarden.control.states import GatewayData, TuningData
from gpuwarden.text import one_line
from gpuwarden.values import ServiceState

_STATE_COLOURS = {ServiceState.RUNNING: "good", ServiceState.DEGRADED: "bad"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the status: 0 only while the service is running with nothing amiss.

    The JSON is the answer of the bus method GetStatus.
    """
    known = get_status_or_last(names.GUARD_STATE_FILE)
    warn(known.caveat)
    if arguments.json:
        print(known.data.model_dump_json(indent=2))
    else:
        print("\n".join(screen(known, unix_now())))
    if not known.is_live:
        return Exit.UNREACHABLE
    return Exit.GOOD if known.data.state is ServiceState.RUNNING else Exit.WRONG


def screen(known: Known, now_unix_seconds: float) -> list[str]:
    """The lines of the status screen."""
    data = known.data
    simulated = " with SIMULATED cards" if data.simulated else ""
    state = coloured(data.state.upper(), _STATE_COLOURS.get(data.state, "warn"))
    lines = [f"gpuwarden {one_line(data.version)} is {state}{simulated}"]
    lines += [fitted(f"  because: {reason}") for reason in data.reasons]
    ready = f"{data.workers_ready} of {data.workers_total} ready"
    lines += ["", f"{coloured('Workers', 'strong')}: {ready}"]
    lines += worker_lines(data.workers, now_unix_seconds)
    lines += ["", coloured("Cards", "strong"), *gpu_lines(data.gpus, now_unix_seconds)]
    now, so_far = _request_lines(data.gateway)
    lines += ["", f"{coloured('Requests', 'strong')}: {now}", f"  {so_far}"]
    if data.tuning is not None:
        lines += ["", fitted(f"{coloured('Host', 'strong')}: {_host(data.tuning)}")]
    helpful = advice(data, live=known.is_live)
    if helpful:
        rows = [(command, f"# {what}") for command, what in helpful]
        lines += ["", coloured("What would help", "strong")]
        lines += [fitted(line) for line in table(("", ""), rows)[1:]]
    return lines


def _host(tuning: TuningData) -> str:
    if tuning.untuned:
        return f"not tuned: {one_line(tuning.untuned)}"
    profile = one_line(tuning.profile) or "no profile"
    by = f" ({tuning.time_of_day})" if tuning.time_of_day else ""
    state = ", verified" if tuning.verified else ""
    note = tuning.fault or tuning.note
    return f"{profile} in force{by}{state}" + (f"; {one_line(note)}" if note else "")


def _request_lines(gateway: GatewayData | None) -> tuple[str, str]:
    if gateway is None:
        return "unknown", "the gateway has not published its state"
    paused = "PAUSED, " if gateway.paused else ""
    mean = gateway.mean_response_seconds
    timing = "" if mean is None else f", {mean:.2f} s on average"
    return (
        f"{paused}{gateway.queue_depth} of {gateway.queue_limit} waiting",
        f"{gateway.completed} answered{timing}, {gateway.failed} failed, "
        f"{gateway.rejected} refused, {gateway.retried} retried",
    )
