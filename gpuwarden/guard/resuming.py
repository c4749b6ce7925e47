# SPDX-License-Identifier: Apache-2.0
"""What a new guard makes of the orders that a former one of this boot was about."""

from gpuwarden.bus.errors import BusError
from gpuwarden.control.states import GuardData
from gpuwarden.guard.operation import DRAINED, ROLLING, Kind, Operation, parse_operation
from gpuwarden.guard.operations import Operations
from gpuwarden.guard.rolling import Rolling
from gpuwarden.values import ServiceState


def resume(former: GuardData | None, operations: Operations, rolling: Rolling) -> None:
    """Go on with them: each is done once more, but for what is done already."""
    if former is None or former.state is ServiceState.STOPPING:
        return
    in_turn: dict[int, list[int]] = {}
    for worker in former.workers:
        if worker.operation == DRAINED:
            operations.drains.wanted.add(worker.number)
            continue
        operation = parse_operation(worker.operation)
        if operation is None:
            continue
        if operation.waits or operation.reason == ROLLING:
            if _is_as_before(operations, worker.number, worker.main_pid) or operation.waits:
                in_turn.setdefault(worker.gpu, []).append(worker.number)
            continue
        _resume(operations, worker.number, worker.main_pid, operation)
    if in_turn:
        rolling.resume(dict(sorted(in_turn.items())))


def _resume(operations: Operations, number: int, main_pid: int, operation: Operation) -> None:
    try:
        worker = operations.status(number)
    except BusError:
        return  # it is not planned any more
    # A worker that is down, or in a life that its old guard never saw, has been stopped already:
    # it is started like any other that is wanted.
    if operation.kind is Kind.RESTART and not _is_as_before(operations, number, main_pid):
        return
    if operation.kind is not Kind.START:
        operations.begin(worker, operation)


def _is_as_before(operations: Operations, number: int, main_pid: int) -> bool:
    try:
        return bool(main_pid) and operations.status(number).main_pid == main_pid
    except BusError:
        return False
