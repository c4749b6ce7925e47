# SPDX-License-Identifier: Apache-2.0
"""How an order to workers goes on and when it is done, from one status to the next. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpuwarden.control.states import GuardData, WorkerStatus
from gpuwarden.guard.operation import DRAINED
from gpuwarden.values import WorkerState

# An order is accepted before the next status tells of it: that is at most a second old.
GRACE_SECONDS = 5.0
# Without an operation under way and without a change, nothing more will come.
STALL_SECONDS = 60.0
_SERVING = frozenset({WorkerState.READY, WorkerState.BUSY})
_UNDER_WAY = frozenset({WorkerState.STARTING, WorkerState.LOADING})


@dataclass(frozen=True)
class Progress:
    """An order and what has come of it.

    :ivar number: of the worker; None: all.
    :ivar former: the main process of each worker before the order.
    :ivar workers: those it is about, as last seen.
    :ivar moved: those that were seen in another state since.
    :ivar changed_at_seconds: when something changed last.
    """

    action: str
    number: int | None
    former: dict[int, int]
    workers: tuple[WorkerStatus, ...]
    began_seconds: float
    changed_at_seconds: float
    moved: frozenset[int] = frozenset()
    drained: frozenset[int] = frozenset()
    done: bool = False
    failed: str = ""

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.done or bool(self.failed)

    @property
    def outcome(self) -> list[str]:
        """What came of it, for people."""
        return [_sentence(each, drained=each.number in self.drained) for each in self.workers]


def begun(action: str, number: int | None, before: GuardData, now_seconds: float) -> Progress:
    """An order that was accepted just now.

    :param before: the state before it was given.
    """
    workers = _concerned(number, before)
    former = {each.number: each.main_pid for each in workers}
    return Progress(action, number, former, workers, now_seconds, now_seconds)


def judge(progress: Progress, data: GuardData, now_seconds: float) -> Progress:
    """The order after one more look."""
    workers = _concerned(progress.number, data)
    changed = {each.number for each in _changed(progress.workers, workers)}
    after = replace(
        progress,
        workers=workers,
        moved=progress.moved | changed,
        drained=frozenset(data.gateway.drained if data.gateway else ()),
        changed_at_seconds=now_seconds if changed else progress.changed_at_seconds,
    )
    if any(each.operation not in ("", DRAINED) for each in workers):
        return replace(after, changed_at_seconds=now_seconds)
    if workers and all(_is_done(after, each, data) for each in workers):
        return replace(after, done=True)
    return replace(after, failed=_failure(after, now_seconds))


def told(before: Progress, after: Progress) -> list[str]:
    """What has changed from one look to the next, a line a worker."""
    return [
        f"worker {each.number}: {each.operation or each.state}"
        for each in _changed(before.workers, after.workers)
    ]


def _changed(before: Sequence[WorkerStatus], after: Sequence[WorkerStatus]) -> list[WorkerStatus]:
    former = {each.number: _face(each) for each in before}
    return [each for each in after if _face(each) != former.get(each.number)]


def _concerned(number: int | None, data: GuardData) -> tuple[WorkerStatus, ...]:
    return tuple(each for each in data.workers if number in (None, each.number))


def _face(worker: WorkerStatus) -> tuple[object, ...]:
    """What makes a difference to somebody who waits; busy or ready doesn't."""
    state = WorkerState.READY if worker.state is WorkerState.BUSY else worker.state
    return state, worker.main_pid, worker.operation


def _is_done(progress: Progress, worker: WorkerStatus, data: GuardData) -> bool:
    if progress.action == "stop":
        return worker.state is WorkerState.STOPPED
    if progress.action == "drain":
        gateway = data.gateway
        if gateway is None or worker.number not in gateway.drained:
            return False
        busy = {each.number for each in gateway.workers if each.outstanding}
        return worker.number not in busy
    is_up = worker.state in _SERVING and worker.number not in progress.drained
    if progress.action == "start":
        return is_up
    return is_up and worker.main_pid != progress.former.get(worker.number)


def _failure(progress: Progress, now_seconds: float) -> str:
    """Why it will not come about any more; empty while it may."""
    waited = now_seconds - progress.began_seconds
    for worker in progress.workers:
        settled = worker.number in progress.moved or waited >= GRACE_SECONDS
        if settled and worker.state is WorkerState.FAILED and progress.action != "stop":
            return f"worker {worker.number} failed: {worker.last_error or 'no reason known'}"
        if settled and worker.held and progress.action in ("start", "restart"):
            return f"worker {worker.number} is not started: {worker.reason or worker.held}"
    if not progress.workers:
        return "the worker is not planned any more" if waited >= GRACE_SECONDS else ""
    if any(worker.state in _UNDER_WAY for worker in progress.workers):
        return ""
    if now_seconds - progress.changed_at_seconds >= STALL_SECONDS:
        return f"nothing has changed for {STALL_SECONDS:.0f} s: {_list(progress.workers)}"
    return ""


def _list(workers: Sequence[WorkerStatus]) -> str:
    return ", ".join(f"worker {each.number} is {each.state}" for each in workers)


def _sentence(worker: WorkerStatus, *, drained: bool) -> str:
    if drained:
        return f"worker {worker.number} is drained: it gets no work until it is started"
    if worker.state is WorkerState.STOPPED:
        return f"worker {worker.number} is stopped"
    return f"worker {worker.number} is {worker.state} (PID {worker.main_pid})"
