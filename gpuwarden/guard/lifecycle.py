# SPDX-License-Identifier: Apache-2.0
"""What state a worker is in and what to do about it: pure functions over what was seen."""

import signal
from dataclasses import dataclass
from typing import Literal

from gpuwarden.values import WorkerState

# After systemd itself has given up (StartLimitBurst=5 in 120 s) the guard tries again after these
# seconds; the last one repeats for ever.
RETRY_SECONDS = (30, 60, 120, 240, 480, 600)

CLD_KILLED, CLD_DUMPED = 2, 3  # waitid(2), si_code

ActiveState = Literal[
    "active", "reloading", "inactive", "failed", "activating", "deactivating", "maintenance"
]
GatewayView = Literal["loading", "ready", "busy", "draining"]


@dataclass(frozen=True)
class UnitFacts:
    """What systemd says of one unit.

    ``since_unix_microseconds`` is when its active state last changed; ``has_job`` says that systemd
    has yet to start, stop or restart it. ``started_monotonic_microseconds`` is when its main
    process was started, by the clock that nobody sets. ``exec_pid`` is the main process that was
    started last, ``exit_code`` and ``exit_status`` tell of its end (waitid(2)'s si_code and
    si_status; 0 while it runs).
    """

    active_state: str = "inactive"
    sub_state: str = "dead"
    result: str = "success"
    main_pid: int = 0
    exec_pid: int = 0
    exit_code: int = 0
    exit_status: int = 0
    exited_unix_microseconds: int = 0
    restarts: int = 0
    status_text: str = ""
    control_group: str = ""
    since_unix_microseconds: int = 0
    has_job: bool = False
    started_monotonic_microseconds: int = 0


@dataclass(frozen=True)
class Intent:
    """What the guard wants of one worker, and how often it has tried in vain.

    A worker that was up and is down without having failed was stopped by somebody: it is not
    wanted until somebody starts it.
    """

    wanted: bool = True
    was_up: bool = False
    failures: int = 0
    retry_at_seconds: float | None = None


def worker_state(unit: UnitFacts, gateway: GatewayView | None) -> WorkerState:
    """The contract's word for a worker, from its unit and from what the gateway sees of it."""
    match unit.active_state:
        case "active" | "reloading":
            # READY=1 and the channel's word for it are two messages: the first one counts.
            return WorkerState.READY if gateway in (None, "loading") else WorkerState(gateway)
        case "activating":
            return WorkerState.LOADING if gateway == "loading" else WorkerState.STARTING
        case "deactivating":
            return WorkerState.DRAINING
        case "failed":
            return WorkerState.FAILED
        case _:
            # Between the two halves of a restart a unit is inactive for a moment.
            return WorkerState.STARTING if unit.has_job else WorkerState.STOPPED


def is_outdated(unit: UnitFacts, revised_monotonic_microseconds: int) -> bool:
    """Whether a worker that runs was started before what is planned for it now."""
    runs = unit.active_state in ("active", "reloading", "activating") and unit.main_pid > 0
    return runs and unit.started_monotonic_microseconds < revised_monotonic_microseconds


def last_error(unit: UnitFacts) -> str:
    """Why the worker's last life ended, in words; empty if it ended well or goes on."""
    if unit.result == "success":
        return ""
    # What it was about; of one that was killed from outside that says nothing about why.
    told = f": {unit.status_text}" if unit.status_text and unit.result != "oom-kill" else ""
    if unit.result == "exit-code":
        return f"exit status {unit.exit_status}{told}"
    if unit.result in ("signal", "core-dump") and unit.exit_code in (CLD_KILLED, CLD_DUMPED):
        return f"killed by {signal_name(unit.exit_status)}"
    return f"{WHAT_RESULTS_MEAN.get(unit.result, unit.result)}{told}"


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; a number that has no name stays one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# systemd.service(5), "Result": in the words of an operator.
WHAT_RESULTS_MEAN = {
    "oom-kill": "killed by the kernel at its memory limit",
    "signal": "killed by a signal",
    "core-dump": "crashed",
    "watchdog": "did not answer its watchdog",
    "timeout": "took too long to start or stop",
    "start-limit-hit": "died too often in a short time",
    "resources": "could not be set up (see journalctl)",
}


def next_intent(intent: Intent, state: WorkerState, now_seconds: float) -> Intent:
    """The intent after a look at the worker: a failed one gets a time for its next try."""
    if state in (WorkerState.READY, WorkerState.BUSY):
        return Intent(wanted=True, was_up=True)
    if state is WorkerState.STOPPED and intent.was_up:
        return Intent(wanted=False)
    if state is WorkerState.FAILED and intent.wanted and intent.retry_at_seconds is None:
        wait_seconds = RETRY_SECONDS[min(intent.failures, len(RETRY_SECONDS) - 1)]
        return Intent(True, False, intent.failures + 1, now_seconds + wait_seconds)
    return intent


def should_start(intent: Intent, state: WorkerState, now_seconds: float) -> bool:
    """Whether to start the worker now: its time for another try has come."""
    return (
        intent.wanted
        and state in (WorkerState.FAILED, WorkerState.STOPPED)
        and intent.retry_at_seconds is not None
        and now_seconds >= intent.retry_at_seconds
    )
