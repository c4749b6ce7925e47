# SPDX-License-Identifier: Apache-2.0
"""The rolling restart: card by card, and no further than the first that does not come back."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping

from gpuwarden.bus.errors import BusError, Busy, Unavailable
from gpuwarden.control.states import GuardData, WorkerStatus
from gpuwarden.guard.holds import Holds
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.operation import ROLLING, Kind, Operation
from gpuwarden.guard.operations import Node, OperationError, Operations
from gpuwarden.guard.status import SERVING
from gpuwarden.systemd.events import Event, tell

ROLLING_RESTART = Operation(Kind.RESTART, ROLLING)
IN_TURN = Operation(Kind.RESTART, ROLLING, waits=True)

Turns = Mapping[int, list[int]]  # card to its workers, in the order in which they are taken


def turns(workers: Iterable[WorkerStatus]) -> Turns:
    """The workers to be restarted, by card: those that are wanted, on cards that may have them."""
    by_card: dict[int, list[int]] = {}
    for worker in sorted(workers, key=lambda worker: (worker.gpu, worker.number)):
        if worker.wanted and not worker.held:
            by_card.setdefault(worker.gpu, []).append(worker.number)
    return by_card


class Rolling:
    """Restarts all workers so that the service goes on.

    :ivar faults: why the last one stopped half way, until all workers serve or another begins.
    """

    def __init__(self, node: Node, operations: Operations, holds: Holds, jobs: Jobs) -> None:
        self.faults: tuple[str, ...] = ()
        self._failed: set[int] = set()
        self._node = node
        self._operations = operations
        self._holds = holds
        self._jobs = jobs

    def begin(self) -> None:
        """Restart all workers that are wanted. Raises BusError: nothing was done."""
        if self._node.is_stopping():
            raise Unavailable("the service is stopping")
        data = self._node.current
        for number, operation in self._operations.under_way.items():
            raise Busy(f"worker {number} is busy ({operation.words}): try again when that is over")
        by_card = turns(data.workers if data else [])
        if not by_card:
            raise Unavailable("there is no worker to restart: none is wanted on a card that serves")
        self.resume(by_card)

    def resume(self, by_card: Turns) -> None:
        """Restart these workers, one card after the other."""
        self.faults, self._failed = (), set()
        for number in _all(by_card):
            self._operations.occupy(number, IN_TURN)
        count = len(_all(by_card))
        tell(
            Event.ROLLING_RESTART,
            f"rolling restart of {count} workers on {len(by_card)} cards has begun",
        )
        self._jobs.spawn(self._roll(by_card), "finish the rolling restart")
        self._node.republish()

    def look(self, data: GuardData) -> None:
        """Forget a failure when what failed serves again."""
        serving = {worker.number for worker in data.workers if worker.state in SERVING}
        if self.faults and self._failed <= serving:
            self.faults = ()

    async def _roll(self, by_card: Turns) -> None:
        began = time.monotonic()
        try:
            for card, numbers in by_card.items():
                if held := self._holds.held(card):
                    self._stop(card, numbers, f"GPU {card} is held ({held})")
                    return
                failures = await asyncio.gather(*(self._restart(number) for number in numbers))
                wrong = {n: why for n, why in zip(numbers, failures, strict=True) if why}
                if wrong:
                    told = "; ".join(f"worker {number}: {why}" for number, why in wrong.items())
                    self._stop(card, list(wrong), told)
                    return
        finally:
            for number in _all(by_card):
                self._operations.occupy(number, None)
        tell(
            Event.ROLLING_RESTART,
            f"rolling restart done: {len(_all(by_card))} workers in "
            f"{time.monotonic() - began:.1f} s",
        )

    async def _restart(self, number: int) -> str:
        """Why it did not come back; empty if it did."""
        operations = self._operations
        operations.occupy(number, ROLLING_RESTART)
        operations.want_up(number)
        self._node.republish()
        try:
            await operations.carry_out(number, ROLLING_RESTART)
        except (OperationError, BusError) as error:
            return str(error)
        finally:
            operations.occupy(number, None)
        return ""

    def _stop(self, card: int, numbers: list[int], why: str) -> None:
        self._failed = set(numbers)
        self.faults = (f"the rolling restart stopped at GPU {card}: {why}",)
        tell(
            Event.ROLLING_RESTART_STOPPED,
            f"{self.faults[0]}; the cards after it were left as they were",
            logging.ERROR,
            GPU=card,
            REASON=why,
        )


def _all(by_card: Turns) -> list[int]:
    return [number for numbers in by_card.values() for number in numbers]
