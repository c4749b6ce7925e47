# SPDX-License-Identifier: Apache-2.0
"""What a caller is told whose request is not accepted, or ends without a worker's answer."""

from collections.abc import Callable

from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.foresight import Foresight, Standing, answer_seconds
from gpuwarden.gateway.queue import RequestQueue
from gpuwarden.gateway.settings import GatewaySettings
from gpuwarden.gateway.statistics import Statistics
from gpuwarden.gateway.work import Ending, Phase, Refusal, Refused

ENDINGS = {
    Ending.QUEUE_TIMEOUT: ("queue_timeout", "no worker was free within the time limit"),
    Ending.MODEL_GONE: (
        "model_unavailable",
        "no worker with the model that was asked for was there within the time limit",
    ),
    Ending.DEADLINE: ("execution_timeout", "the answer did not come within the time limit"),
    Ending.EXECUTION_TIMEOUT: ("execution_timeout", "the worker took longer than it may"),
    Ending.BROKEN_OFF: ("worker_crashed", "the worker died or hung in the middle of this answer"),
    Ending.WORKER_CRASHED: (
        "worker_crashed",
        "the worker died each time it worked on this request: it is not tried again",
    ),
}
TOO_HOT = "the cards are too hot and get no new work until they have cooled down"
TOO_HOT_RETRY_SECONDS = 30  # a card is safe again after so long below its safe temperature


class Refusals:
    """Puts a queue's refusals and endings into words, with the time after which to try again."""

    def __init__(
        self, settings: Callable[[], GatewaySettings], statistics: Statistics, queue: RequestQueue
    ) -> None:
        self._settings = settings
        self._statistics = statistics
        self._queue = queue
        self._foresight = Foresight()

    def foresee(self, joined: int, now: float) -> None:
        """Accept nothing whose answer would come too late. Raises Refused.

        :param joined: requests that workers have not been offered yet.
        """
        queue = self._queue
        if queue.population[Phase.WAITING] <= joined or self._foresight.is_far(queue.depth, now):
            return
        if queue.draining or not queue.can_serve(now):
            return  # that is said first
        limit_seconds = self._settings().request_timeout_seconds
        if not self._foresight.is_in_time(self._standing(), limit_seconds, now):
            raise Refused(Refusal.TOO_LATE)

    def refusal(self, reason: Refusal) -> ApiError:
        """For a request that is not accepted."""
        wait = self._wait_seconds()
        if reason is Refusal.NO_WORKER:
            return ApiError("unavailable", "no worker is ready", retry_after_seconds=max(wait, 5))
        if reason is Refusal.TOO_HOT:
            return ApiError("too_hot", TOO_HOT, retry_after_seconds=TOO_HOT_RETRY_SECONDS)
        if reason is Refusal.DRAINING:
            return ApiError("unavailable", "the service is stopping", retry_after_seconds=5)
        if reason is Refusal.BYTES_FULL:
            text = "the requests that wait hold as many bytes as may wait"
        elif reason is Refusal.TOO_LATE:
            seconds = round(answer_seconds(self._standing()))
            text = f"the answer would take {seconds} s, longer than a request may take"
        else:
            text = f"{self._settings().queue_limit} requests wait already"
        return ApiError("queue_full", text, retry_after_seconds=wait)

    def later(self, error: ApiError) -> ApiError:
        """The same where there is no buffer: one is free again when a request has been served."""
        wait = max(error.retry_after_seconds or 0, self._wait_seconds())
        return ApiError(error.type, error.message, param=error.param, retry_after_seconds=wait)

    def ending(self, ending: Ending) -> ApiError:
        """For an accepted request that no worker has answered."""
        kind, message = ENDINGS[ending]
        wait = None
        if ending is Ending.QUEUE_TIMEOUT and self._queue.cards.too_hot:
            message, wait = f"{message}: {TOO_HOT}", TOO_HOT_RETRY_SECONDS
        elif ending in (Ending.QUEUE_TIMEOUT, Ending.MODEL_GONE):
            wait = self._wait_seconds()
        return ApiError(kind, message, retry_after_seconds=wait)

    def _standing(self) -> Standing:
        queue, statistics = self._queue, self._statistics
        return Standing(
            waiting=queue.population[Phase.WAITING],
            receiving=queue.population[Phase.RECEIVING],
            running=sum(seat.outstanding for seat in queue.seats.values()),
            places=queue.cards.capacity,
            batch_seconds=statistics.batch_seconds,
            service_seconds=statistics.service_seconds,
        )

    def _wait_seconds(self) -> int:
        return self._statistics.retry_after_seconds(
            max(1, self._queue.depth),  # at least one has to end before there is room
            self._queue.cards.capacity,
            self._settings().request_timeout_seconds,
        )
