# SPDX-License-Identifier: Apache-2.0
"""When a request that comes now would have its answer: who would be too late is not accepted.

A full queue of a slow model is more work than fits into a deadline. Its requests would then reach a
worker when they are nearly out of time, one after the other, and nobody would be answered. The same
comes about when workers become fewer or slower after requests were accepted: so it is looked at
again when a worker has room for one. Pure.
"""

from dataclasses import dataclass

from gpuwarden.gateway.work import Seat

TRUSTED_SHARE = 0.8  # of the time limit: a mean knows nothing of the next request
LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Standing:
    """How things stand at the front door; times in seconds, None before the first measurement.

    :ivar waiting: requests that are ready for a worker, :ivar receiving: whose body still comes.
    :ivar running: requests in workers.
    :ivar places: requests that the workers run at once, on average over time.
    :ivar batch_seconds: a batch's time on the card.
    :ivar service_seconds: from the worker to its answer, the batch before included.
    """

    waiting: int
    receiving: int
    running: int
    places: float
    batch_seconds: float | None
    service_seconds: float | None


def answer_seconds(now: Standing) -> float:
    """How long the answer would take; 0 where a worker takes the request at once.

    By two measures, of which the longer counts: what the cards take for a batch, known at once, and
    how fast requests have gone through the workers (Little's law), which knows of all else that
    holds them up. Bodies that still come count only where others wait: they keep no worker.
    """
    if not now.waiting:
        return 0.0
    before_its_answer = now.waiting + now.receiving + now.running + 1
    by_cards = by_workers = 0.0
    if now.batch_seconds and now.places:
        by_cards = before_its_answer * now.batch_seconds / now.places
    if now.service_seconds and now.running:
        by_workers = before_its_answer * now.service_seconds / now.running
    return max(by_cards, by_workers)


class Foresight:
    """Looks at how things stand for each request, but while the limit is far only now and then.

    Far means: it takes twice as long a queue to come near it. How fast things go changes in
    ``LOOK_SECONDS`` by less than that, unless cards are paused, which refuses requests by itself.
    """

    def __init__(self) -> None:
        self._depth = 0.0
        self._until = 0.0

    def is_far(self, depth: int, now: float) -> bool:
        """Whether nothing has to be looked at.

        :param depth: requests that no worker has yet.
        """
        return depth <= self._depth and now < self._until

    def is_in_time(self, standing: Standing, limit_seconds: float, now: float) -> bool:
        """Whether a request that comes now can count on its answer within the limit."""
        seconds, limit = answer_seconds(standing), TRUSTED_SHARE * limit_seconds
        self._until = now + LOOK_SECONDS if 0 < seconds <= limit / 2 else 0.0
        if self._until:
            self._depth = (standing.waiting + standing.receiving) * limit / (2 * seconds)
        return seconds <= limit


def answered_at(seat: Seat, batch_seconds: float | None, now: float) -> float:
    """By when a worker surely answers what it is given now; at once, before the first measurement.

    :param batch_seconds: a batch's time on its card.
    """
    if batch_seconds is None:
        return now
    before = 0.0
    if seat.batches and not seat.slots:
        runs_since = next(iter(seat.batches.values())).started
        before = 0.0 if runs_since is None else max(0.0, runs_since + batch_seconds - now)
    return now + (before + batch_seconds) / TRUSTED_SHARE
