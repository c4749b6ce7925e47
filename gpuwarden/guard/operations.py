# SPDX-License-Identifier: Apache-2.0
"""Starts, stops, drains and restarts workers by somebody's order: accepted at once, done beside."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Protocol

from gpuwarden.bus.errors import BusError, NoSuchWorker
from gpuwarden.config import accepted_configuration
from gpuwarden.config.models import WorkersSettings
from gpuwarden.control.socket import ControlError
from gpuwarden.control.states import GuardData, WorkerStatus
from gpuwarden.guard.drains import Drains
from gpuwarden.guard.holds import Holds
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.lives import Lives
from gpuwarden.guard.operation import DRAINED, NOT_UP, Kind, Operation, refusal
from gpuwarden.guard.status import SERVING, UNWELL
from gpuwarden.guard.stopping import Stopping
from gpuwarden.guard.workers import Workers
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError
from gpuwarden.values import WorkerState

log = logging.getLogger(__name__)

SEEN_SECONDS = 30.0  # from systemd's word that a worker is ready to ours


class Node(Protocol):
    """What operations see of the node."""

    current: GuardData | None

    def is_stopping(self) -> bool:
        """Whether the whole service goes down."""

    def republish(self) -> GuardData:
        """Publish now what is known and wanted."""

    async def next_look(self) -> GuardData:
        """The state after the next look at everything."""


class OperationError(Exception):
    """A worker could not be brought where it was wanted; the text says why."""


class Operations:
    """What is being done with workers by order; one thing at a time with each."""

    def __init__(
        self, node: Node, workers: Workers, holds: Holds, lives: Lives, jobs: Jobs, drains: Drains
    ) -> None:
        self.drains = drains
        self._node = node
        self._workers = workers
        self._holds = holds
        self._jobs = jobs
        self._stopping = Stopping(workers.systemd, lives, drains)
        self._under_way: dict[int, Operation] = {}

    # -- orders ------------------------------------------------------------------------------

    def start(self, number: int) -> None:
        """Start a worker, or give a drained one work again. Raises BusError: nothing was done."""
        self._begin_by_hand(self._admitted(number, Kind.START), Operation(Kind.START))

    def stop(self, number: int) -> None:
        """Drain and stop a worker, which then stays down. Raises BusError: nothing was done."""
        self.begin(self._admitted(number, Kind.STOP), Operation(Kind.STOP))

    def restart(self, number: int) -> None:
        """Drain, stop and start a worker. Raises BusError: nothing was done."""
        self._begin_by_hand(self._admitted(number, Kind.RESTART), Operation(Kind.RESTART))

    def drain(self, number: int) -> None:
        """Give a worker no new work; it stays up. Raises BusError: nothing was done."""
        self.begin(self._admitted(number, Kind.DRAIN), Operation(Kind.DRAIN))

    def recycle(self, number: int, reason: str) -> bool:
        """Restart a worker in all order because it is not well; False if that can't be now."""
        try:
            worker = self._admitted(number, Kind.RESTART)
        except BusError as error:
            log.info("worker %d is not restarted (%s): %s", number, reason, error)
            return False
        if worker.held:
            return False  # an operator may try a card all the same, we don't
        self.begin(worker, Operation(Kind.RESTART, reason))
        return True

    # -- what is known -----------------------------------------------------------------------

    @property
    def under_way(self) -> Mapping[int, Operation]:
        """What is being done, by worker."""
        return self._under_way

    def words(self) -> dict[int, str]:
        """As WorkerStatus.operation says it, by worker."""
        standing = dict.fromkeys(self.drains.wanted, DRAINED)
        return standing | {number: each.words for number, each in self._under_way.items()}

    def look(self, data: GuardData) -> None:
        """Take a look: a worker that somebody has stopped otherwise is not to be drained."""
        for worker in data.workers:
            idle = worker.number in self.drains.wanted and worker.number not in self._under_way
            if idle and worker.state is WorkerState.STOPPED and not worker.wanted:
                self.drains.wanted.discard(worker.number)
        self.drains.retell(data.gateway)

    def status(self, number: int) -> WorkerStatus:
        """The worker as last seen. Raises NoSuchWorker."""
        workers = self._node.current.workers if self._node.current else []
        for worker in workers:
            if worker.number == number:
                return worker
        raise NoSuchWorker(f"there is no worker {number}")

    def occupy(self, number: int, operation: Operation | None) -> None:
        """Note what is under way with a worker; None: nothing any more."""
        if operation is None:
            self._under_way.pop(number, None)
        else:
            self._under_way[number] = operation

    # -- carrying out ------------------------------------------------------------------------

    def begin(self, worker: WorkerStatus, operation: Operation) -> None:
        """Do it beside the loop; nothing else is done with the worker until it has ended."""
        number = worker.number
        self.occupy(number, operation)
        if operation.kind is Kind.STOP:
            self._workers.want(number, False)
        elif operation.kind is not Kind.DRAIN:
            self.want_up(number)
        tell(
            Event.WORKER_OPERATION,
            f"worker {number}: {operation.words}",
            WORKER=number,
            GPU=worker.gpu,
            REASON=operation.reason,
        )
        self._jobs.spawn(self._run(number, operation), f"finish {operation.kind} worker {number}")
        self._node.republish()

    def _begin_by_hand(self, worker: WorkerStatus, operation: Operation) -> None:
        """An operator who starts a worker wants its card in service, if it was not."""
        self._holds.close_breaker(worker.gpu)
        self.begin(worker, operation)

    def want_up(self, number: int) -> None:
        """It is to run, whatever was before."""
        self._workers.want(number, True)

    async def _run(self, number: int, operation: Operation) -> None:
        try:
            await self.carry_out(number, operation)
        except OperationError as error:
            self.tell_failure(number, operation, str(error))
        finally:
            self.occupy(number, None)

    async def carry_out(self, number: int, operation: Operation) -> None:
        """Do it. Raises OperationError."""
        steps = {
            Kind.START: self._start,
            Kind.STOP: self._stop,
            Kind.RESTART: self._restart,
            Kind.DRAIN: self._drain,
        }
        try:
            await steps[operation.kind](number, operation)
        except (JobError, BusError) as error:
            self.drains.wanted.discard(number)  # where it stays up, it is to work
            raise OperationError(str(error)) from error

    async def _start(self, number: int, operation: Operation) -> None:
        worker = self.status(number)
        await self._undrain(number)
        if worker.state not in NOT_UP or worker.state in (
            WorkerState.STARTING,
            WorkerState.LOADING,
        ):
            self._workers.keep_up(number)  # it is up, on its way, or about to go down
            return
        await self._bring_up(number)

    async def _stop(self, number: int, operation: Operation) -> None:
        worker = self.status(number)
        await self._stopping.stop(worker, operation, patience_seconds(worker))
        await self._undrain(number)

    async def _restart(self, number: int, operation: Operation) -> None:
        began = time.monotonic()
        worker = self.status(number)
        await self._stopping.stop(worker, operation, patience_seconds(worker))
        await self._undrain(number)
        await self._bring_up(number)
        why = f" ({operation.reason})" if operation.reason else ""
        tell(
            Event.WORKER_OPERATION,
            f"worker {number} is back after {time.monotonic() - began:.1f} s{why}",
            WORKER=number,
            GPU=worker.gpu,
            REASON=operation.reason,
        )

    async def _drain(self, number: int, operation: Operation) -> None:
        seconds, began = drain_seconds(), time.monotonic()
        try:
            left = await self.drains.drain(number, seconds)
        except ControlError as error:
            # Wanted all the same: the gateway is told as soon as it is there.
            raise OperationError(f"the gateway can't be asked now: {error}") from error
        took = time.monotonic() - began
        told = f"; {left} requests still run after {seconds:g} s" if left else f" in {took:.1f} s"
        tell(
            Event.WORKER_DRAINED,
            f"worker {number} is drained{told}: it gets no work until it is started or restarted",
            logging.WARNING if left else logging.INFO,
            WORKER=number,
        )

    async def _bring_up(self, number: int) -> None:
        """Start it, and see it serve. Raises JobError, BusError or OperationError."""
        worker = self.status(number)
        if held := self._holds.held(worker.gpu):
            raise OperationError(f"it stays down: GPU {worker.gpu} is held ({held})")
        try:
            await self._workers.start(number, worker.gpu)
        except JobError as error:
            why = self.status(number).last_error
            raise OperationError(f"it did not become ready: {why or error}") from error
        try:
            async with asyncio.timeout(SEEN_SECONDS):
                while self.status(number).state not in SERVING:
                    await self._node.next_look()
        except TimeoutError:
            state = self.status(number).state
            raise OperationError(
                f"it was ready and is {state} {SEEN_SECONDS:.0f} s later"
            ) from None

    async def _undrain(self, number: int) -> None:
        try:
            await self.drains.undrain(number)
        except ControlError as error:
            log.info("worker %d: the gateway is told later: %s", number, error)

    # -- the inside --------------------------------------------------------------------------

    def _admitted(self, number: int, kind: Kind) -> WorkerStatus:
        """The worker, if that may be done with it now. Raises BusError."""
        worker = self.status(number)
        why_not = refusal(
            kind,
            worker,
            self._under_way.get(number),
            self._holds.breaker(worker.gpu),
            stopping=self._node.is_stopping(),
            card_asks=self._holds.asks(worker.gpu),
        )
        if why_not is not None:
            raise why_not
        return worker

    def tell_failure(self, number: int, operation: Operation, why: str) -> None:
        """Say that something could not be done."""
        tell(
            Event.WORKER_OPERATION_FAILED,
            f"worker {number}: {operation.words} has failed: {why}",
            logging.ERROR,
            WORKER=number,
            REASON=why,
        )


def patience_seconds(worker: WorkerStatus) -> float:
    """How long a worker may finish what it has: one that is stuck, or has no card, will not."""
    return 0.0 if worker.state in UNWELL else drain_seconds()


def drain_seconds() -> float:
    """How long a worker may finish what it has, as configured now."""
    configuration = accepted_configuration()
    return (configuration.workers if configuration else WorkersSettings()).drain_seconds
