# SPDX-License-Identifier: Apache-2.0
"""Whether a batch goes out as it is, or waits a moment for company. Pure.

- **Greedy** by default: a worker with room gets at once what is there.
- **Linger**: where it is configured, an incomplete batch waits until its oldest member has waited
  that long; but only if company is likely (at least one more arrives in that time, by the rate of
  the last arrivals) and no other worker idles. It never takes more than half of the time that a
  member has left: the rest is for the answer.
- **Budget**: a batch's pixels and tokens stay within what its worker and the configuration allow;
  a request that is over the budget by itself runs alone.
"""

import math
from collections import deque
from dataclasses import dataclass

from gpuwarden.gateway.work import UNBOUNDED, Request, Weight

ARRIVALS_KEPT = 16  # what the rate is of: four batches of four
SHARE_OF_TIME_LEFT = 0.5  # that waiting for company may take


@dataclass(frozen=True)
class BatchRules:
    """The configuration's part.

    :param linger_seconds: how long the oldest may wait for company.
    :param budget: what a batch may weigh, whatever its worker takes.
    """

    linger_seconds: float = 0.0
    budget: Weight = UNBOUNDED


class Batching:
    """The rules, and how fast people's requests come.

    :ivar until: when the batch that waits for company goes out; None: none waits.
    """

    def __init__(self) -> None:
        self.rules = BatchRules()
        self.until: float | None = None
        self._arrivals = deque[float](maxlen=ARRIVALS_KEPT)

    def arrived(self, now: float) -> None:
        """A person's request is complete."""
        self._arrivals.append(now)

    def expected(self, seconds: float, now: float) -> float:
        """How many come in so long a time, at the rate of the last ones."""
        if len(self._arrivals) < 2:
            return 0.0
        span = now - self._arrivals[0]
        return (len(self._arrivals) - 1) * seconds / span if span > 0 else math.inf

    def holds_back(self, batch: list[Request], now: float) -> bool:
        """Whether an incomplete batch waits; ``until`` then says how long."""
        until = min(company_until(one, self.rules.linger_seconds) for one in batch)
        if until <= now or self.expected(self.rules.linger_seconds, now) < 1:
            return False
        self.until = until if self.until is None else min(self.until, until)
        return True


def company_until(request: Request, linger_seconds: float) -> float:
    """How long a request waits for company."""
    left = request.deadline - request.queued_at
    return request.queued_at + min(linger_seconds, SHARE_OF_TIME_LEFT * left)
