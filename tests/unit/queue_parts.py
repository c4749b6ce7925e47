# SPDX-License-Identifier: Apache-2.0
"""What the queue's tests begin with."""

from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.work import (
    Action,
    Answered,
    CardLimits,
    Limits,
    Request,
    Seat,
    Verdict,
    Weight,
)

LIMITS = Limits(
    count=6, total_bytes=60, request_seconds=30.0, execution_seconds=20.0, grace_seconds=5.0
)


def serving_seat(
    queue: RequestQueue,
    key: int,
    *,
    max_batch: int = 4,
    slots: bool = False,
    model: str = "",
    heat: CardLimits | None = None,
    now: float = 0.0,
) -> Seat:
    seat = Seat(key, key, max_batch, slots, model)
    queue.limit(key, heat or CardLimits(), now)
    queue.attach(seat)
    queue.set_state(seat, ready=True, draining=False, now=now)
    queue.grant(seat, 2 * max_batch, now)
    return seat


def enqueue(queue: RequestQueue, request: Request, now: float) -> list[Action]:
    """One request joins, alone in its turn of the loop."""
    queue.join(request, now)
    return queue.serve([request], now)


def waiting_request(queue: RequestQueue) -> tuple[Request, list[Action]]:
    request = queue.admit(1, 0.0)
    return request, enqueue(queue, request, 0.0)


def result(
    queue: RequestQueue,
    seat: Seat,
    number: int,
    lease: int,
    *,
    returned: bool,
    now: float,
    gpu_seconds: float | None = None,
) -> tuple[Verdict, list[Action]]:
    """The seat's worker answers one lease."""
    answer = Answered(number, lease, returned, gpu_seconds)
    verdicts, ran = queue.settle(seat, [answer])
    return verdicts[0], queue.go_on(seat, ran, now)


def exceeds(weights: list[Weight], budget: Weight) -> bool:
    """Whether they are together over a budget in any respect."""
    pixels, tokens = sum(one.pixels for one in weights), sum(one.tokens for one in weights)
    return pixels > budget.pixels or tokens > budget.tokens
