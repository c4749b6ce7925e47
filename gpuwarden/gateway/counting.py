# SPDX-License-Identifier: Apache-2.0
"""How a request's end is counted."""

import asyncio

from gpuwarden.gateway.job import Job
from gpuwarden.gateway.metrics import Metrics
from gpuwarden.gateway.statistics import Statistics


def count(
    job: Job,
    error: BaseException | None,
    now: float,
    statistics: Statistics,
    metrics: Metrics,
) -> None:
    """Count an accepted request that has its answer or its error, or whose caller has left."""
    started = job.request.dispatched_at
    if job.request.background:
        return  # the job store counts its own
    if isinstance(error, asyncio.CancelledError | ConnectionError):
        statistics.cancelled += 1
    elif error is not None:
        statistics.failed += 1
    elif started is None:  # answered with what another one got: that took no time of a worker's
        statistics.completed += 1
    else:
        statistics.complete(now - job.accepted_at, now - started)
        queued = job.queued_at or started
        metrics.answered(started - queued, now - started, now - job.accepted_at)
