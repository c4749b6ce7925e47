# SPDX-License-Identifier: Apache-2.0
"""When a worker may be restarted for its health: pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpuwarden.control.states import GatewayData, WorkerStatus
from gpuwarden.guard.status import SERVING
from gpuwarden.values import WorkerState

QUIET_SECONDS = 60.0  # without a request, before the only worker that serves is started again

# What is not cured by one restart is not cured by many: seconds between those of one worker.
PAUSE_SECONDS = (0.0, 60.0, 300.0, 900.0, 1800.0)
FORGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Pause:
    """How often a worker was restarted for its health lately, and when last."""

    restarts: int = 0
    last_seconds: float = 0.0


def is_idle_moment(
    number: int,
    workers: Iterable[WorkerStatus],
    gateway: GatewayData | None,
    quiet_seconds: float,
) -> bool:
    """Whether nobody would miss a worker for as long as a restart takes.

    :param quiet_seconds: for how long no request has come and none is under way.
    """
    if gateway is None or gateway.queue_depth:
        return False
    if not any(each.number == number and not each.outstanding for each in gateway.workers):
        return False
    known = list(workers)
    if not any(each.number == number and each.state is WorkerState.READY for each in known):
        return False
    others = [each for each in known if each.number != number and each.wanted and not each.held]
    if any(each.state not in SERVING or each.operation for each in others):
        return False  # one at a time
    return bool(others) or quiet_seconds >= QUIET_SECONDS


def may_restart(pause: Pause, now_seconds: float) -> bool:
    """Whether a worker's last restarts for its health are long enough ago for another one."""
    wait = PAUSE_SECONDS[min(pause.restarts, len(PAUSE_SECONDS) - 1)]
    return not pause.restarts or now_seconds - pause.last_seconds >= wait


def after_restart(pause: Pause, now_seconds: float) -> Pause:
    """The pause after one more."""
    forgotten = now_seconds - pause.last_seconds >= FORGET_SECONDS
    return Pause(1 if forgotten else pause.restarts + 1, now_seconds)
