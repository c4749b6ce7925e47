# SPDX-License-Identifier: Apache-2.0
"""What the queue is made of: requests, workers' seats, batches, and what is to be done."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from gpuwarden.values import ThermalState

BATCHES_PER_WORKER = 2  # one runs, one is being prepared


class Refusal(Enum):
    """Why a request is not accepted."""

    NO_WORKER = auto()
    TOO_HOT = auto()
    QUEUE_FULL = auto()
    BYTES_FULL = auto()
    TOO_LATE = auto()  # there is room, but its answer would come after its deadline
    DRAINING = auto()


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A request is not accepted."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Phase(IntEnum):
    """Where a request is."""

    RECEIVING = 0
    WAITING = 1
    RUNNING = 2
    HELD = 3  # of the background: no worker gets it before it is noted whether it was begun
    ENDED = 4


class Ending(Enum):
    """How a request ends without a worker's answer."""

    QUEUE_TIMEOUT = auto()  # its deadline passed before a worker took it
    DEADLINE = auto()  # its deadline passed in a worker
    EXECUTION_TIMEOUT = auto()  # its worker took longer than an execution may take
    WORKER_CRASHED = auto()  # it killed three workers
    MODEL_GONE = auto()  # no worker with the model that it asks for was there by its deadline
    BROKEN_OFF = auto()  # its worker died when a part of the answer had gone to the caller


class Verdict(Enum):
    """What a worker's RESULT means."""

    DELIVER = auto()
    DROPPED = auto()  # nobody waits for it any more
    RETURNED = auto()  # the worker gives the request back, unexecuted
    STALE = auto()  # no such lease in this worker


class Answered(NamedTuple):
    """A lease that a worker has answered.

    :param number: of the request that it says it answers.
    :param returned: the worker gives the request back, unexecuted.
    :param gpu_seconds: how long the batch, or the part of it that is answered, ran.
    """

    number: int
    lease: int
    returned: bool = False
    gpu_seconds: float | None = None


class Weight(NamedTuple):
    """What a request brings into a batch, as far as that is known before a worker decodes it."""

    pixels: int = 0
    tokens: int = 0

    def least(self, other: "Weight") -> "Weight":
        """The stricter of two budgets in each respect."""
        if other is self:
            return self
        return Weight(min(self.pixels, other.pixels), min(self.tokens, other.tokens))


NO_WEIGHT = Weight()
UNBOUNDED = Weight(1 << 62, 1 << 62)


class Kind(NamedTuple):
    """What requests have in common that can be computed together.

    :ivar parameters: how an answer is to be generated: a hash over all of it.
    :ivar pixels: a step on a coarse scale; so is ``tokens``.
    """

    parameters: bytes = b""
    pixels: int = 0
    tokens: int = 0


PLAIN = Kind()


@dataclass(eq=False, slots=True)
class Request:
    """One accepted request.

    :param background: nobody waits for it: people's requests go before.
    :param priority: among the background's own; the larger first.
    :ivar kind: of what it is; None: unknown, so that it is like no other.
    :ivar model: which a worker has to run for it; None: any.
    :ivar queued_at: when its body was complete.
    :ivar joining: it is in its own prefill, or one of a group that is.
    :ivar shared_deaths: of workers with slots that it may have killed, or one of several others.
    """

    number: int
    body_bytes: int
    deadline: float
    background: bool = False
    priority: int = 0
    phase: Phase = Phase.RECEIVING
    seat: int | None = None
    lease: int = 0
    weight: Weight = NO_WEIGHT
    kind: Kind | None = PLAIN
    model: str | None = None
    queued_at: float = 0.0
    joining: bool = False
    suspect: bool = False
    solo_deaths: int = 0
    shared_deaths: int = 0
    streamed: bool = False  # a part of its answer has gone to the caller: it can't be tried again
    dispatched_at: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the queue has nothing more to do with it."""
        return self.phase is Phase.ENDED


@dataclass(eq=False)
class Batch:
    """Requests that run together; ``None`` where a lease goes on without its request."""

    number: int
    leases: dict[int, Request | None]
    started: float | None = None

    @property
    def awaited(self) -> list[Request]:
        """Requests in it that have not been withdrawn."""
        return [request for request in self.leases.values() if request is not None]

    @property
    def is_background(self) -> bool:
        """Whether nobody waits for it (a batch is of one class)."""
        return any(request.background for request in self.awaited)


Ran = dict[Batch, float | None]  # what was answered together, with its seconds on the card


@dataclass(eq=False)
class Seat:
    """One connected worker.

    :param slots: the worker joins requests by itself: each goes out at once, against its credit.
    :ivar budget: what a batch of it may weigh.
    :ivar ceiling: requests that it may run together for want of memory; None: ``max_batch``.
    :ivar mixed: a batch of it may have requests of all kinds.
    :ivar drained: the guard wants it to get no new work.
    """

    key: int
    card: int
    max_batch: int
    slots: bool = False
    model: str = ""
    ceiling: int | None = None
    ready: bool = False
    draining: bool = False
    drained: bool = False
    stalled: bool = False  # an execution passed its time limit and has not come back since
    exclusive: bool = False  # a suspect is in it
    credit: int = 0
    budget: Weight = UNBOUNDED
    mixed: bool = False
    last_used: int = 0
    batches: dict[int, Batch] = field(default_factory=dict)

    @property
    def outstanding(self) -> int:
        """Leases that have not come back."""
        count = 0
        for batch in self.batches.values():  # two at most: a generator would cost more than they
            count += len(batch.leases)
        return count

    @property
    def awaited(self) -> list[Request]:
        """Requests in it that have not been withdrawn."""
        return [request for batch in self.batches.values() for request in batch.awaited]

    @property
    def unanswered(self) -> int:
        """How many they are."""
        return len(self.awaited)

    @property
    def begun(self) -> list[Batch]:
        """What it works on, as far as that is known here."""
        return [one for one in self.batches.values() if one.started is not None]

    @property
    def not_begun(self) -> list[Batch]:
        """What it has and doesn't work on yet."""
        return [one for one in self.batches.values() if one.started is None]

    def awaits(self, number: int, lease: int) -> Request | None:
        """The request of a lease, unless it has been withdrawn or is another one."""
        batch = self.batch_of(lease)
        request = None if batch is None else batch.leases[lease]
        return request if request is not None and request.number == number else None

    def batch_of(self, lease: int) -> Batch | None:
        """The batch that a lease is of; None for a lease that it doesn't hold."""
        for batch in self.batches.values():  # a generator would cost more, as above
            if lease in batch.leases:
                return batch
        return None

    @property
    def serving(self) -> bool:
        """Whether it can answer requests at all."""
        return self.ready and not self.draining and not self.stalled

    @property
    def open(self) -> bool:
        """Whether it takes another batch now."""
        if self.exclusive or self.credit <= 0 or not self.serving:
            return False
        return self.slots or len(self.batches) < BATCHES_PER_WORKER


@dataclass(frozen=True)
class CardLimits:
    """What the workers of a card may be given.

    :param batch_limit: requests that may run together; None: as many as the worker takes.
    :param duty: share of the time in which the card may work, over 0, at most 1.
    :param paused: nothing new at all; what runs finishes.
    :param state: the card's thermal state, for its workers to know.
    """

    batch_limit: int | None = None
    duty: float = 1.0
    paused: bool = False
    state: ThermalState = field(default=ThermalState.NORMAL, compare=False)


ECO = CardLimits(batch_limit=1)  # what is right for any card that nobody is known to watch


def is_waiting(request: Request) -> bool:
    """Whether it can be given to a worker."""
    return request.phase is Phase.WAITING


@dataclass(slots=True)
class Dispatch:
    """Send these requests, as one batch, to the worker."""

    seat: int
    batch: int
    jobs: tuple[tuple[Request, int], ...]  # with its lease each


@dataclass(slots=True)
class Withdraw:
    """Tell the worker that nobody waits for this lease."""

    seat: int
    request: int
    lease: int


@dataclass(slots=True)
class End:
    """Answer the caller."""

    request: Request
    ending: Ending


@dataclass(slots=True)
class Repeat:
    """Note that a worker may have begun it, then have it ``join`` again."""

    request: Request


Action = Dispatch | Withdraw | End | Repeat


@dataclass(frozen=True)
class Limits:
    """Bounds of the queue; times in seconds.

    :param grace_seconds: while the last worker restarts, requests are accepted and wait for it.
    """

    count: int
    total_bytes: int
    request_seconds: float
    execution_seconds: float
    grace_seconds: float = 10.0
