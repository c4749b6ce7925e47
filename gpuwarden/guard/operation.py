# SPDX-License-Identifier: Apache-2.0
"""What may be done with a worker, and when: pure, and in words."""

from dataclasses import dataclass, replace
from enum import StrEnum

from gpuwarden.bus.errors import BusError, Busy, Unavailable
from gpuwarden.control.states import WorkerStatus
from gpuwarden.guard.breaker import Breaker
from gpuwarden.guard.heat import DOWN
from gpuwarden.values import WorkerState

ROLLING = "rolling restart"
WAITING = "waiting"
DRAINED = "drained"
NOT_UP = DOWN | {WorkerState.STARTING, WorkerState.LOADING}


class Kind(StrEnum):
    """What is done with a worker."""

    START = "starting"
    STOP = "stopping"
    RESTART = "restarting"
    DRAIN = "draining"


@dataclass(frozen=True, slots=True)
class Operation:
    """What is under way with a worker.

    :ivar reason: why, where no operator has asked for just this.
    :ivar waits: its turn has not come.
    """

    kind: Kind
    reason: str = ""
    waits: bool = False

    @property
    def words(self) -> str:
        """As WorkerStatus.operation says it: ``restarting: ghost``."""
        word = WAITING if self.waits else self.kind.value
        return f"{word}: {self.reason}" if self.reason else word

    @property
    def begun(self) -> "Operation":
        """It, when its turn has come."""
        return replace(self, waits=False)


def parse_operation(words: str) -> Operation | None:
    """The operation that a former guard was about; None for none, or for a standing drain."""
    word, _, reason = words.partition(": ")
    if word == WAITING:
        return Operation(Kind.RESTART, reason, waits=True)
    return Operation(Kind(word), reason) if word in set(Kind) else None


def refusal(
    kind: Kind,
    worker: WorkerStatus,
    under_way: Operation | None,
    breaker: Breaker,
    *,
    stopping: bool,
    card_asks: bool,
) -> BusError | None:
    """Why it can't be done now; None: it can.

    :param breaker: of the worker's card.
    :param card_asks: the card itself says that it needs a reset or a reboot first.
    """
    number = worker.number
    if stopping:
        return Unavailable("the service is stopping: no worker is started or stopped by hand now")
    if under_way is not None:
        return Busy(f"worker {number} is busy ({under_way.words}): try again when that is over")
    if kind is Kind.DRAIN and worker.state in NOT_UP:
        return Unavailable(f"worker {number} is {worker.state}: there is nothing to drain")
    is_start = kind in (Kind.START, Kind.RESTART)
    return _refusal_of_card(worker, breaker, card_asks) if is_start else None


def _refusal_of_card(worker: WorkerStatus, breaker: Breaker, card_asks: bool) -> BusError | None:
    gpu = worker.gpu
    if worker.held == "heat":
        return Unavailable(f"GPU {gpu} is too hot: its workers are started when it has cooled")
    if worker.held == "released":
        return Unavailable(
            f"GPU {gpu} is released: gpuwarden thermal clear-override {gpu} takes it back"
        )
    if worker.held and card_asks:
        return Unavailable(
            f"GPU {gpu} needs a {breaker.remedy} first, {breaker.why}: {breaker.what_to_do(gpu)}"
        )
    return None
