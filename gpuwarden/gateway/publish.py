# SPDX-License-Identifier: Apache-2.0
"""Tells the others how it stands: snapshot, ``STATUS=``, watchdog. Each from the loop it proves."""

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol, cast

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import GatewayData, GatewayJobs, GatewayWorker, ServerFigures
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.memory import memory_of

PUBLISH_SECONDS = 1.0  # a snapshot is never older
COALESCE_SECONDS = 0.1  # nor written more often: changes within are told together


class ServiceNotifier(Protocol):
    """What the service manager wants to hear."""

    def ready(self) -> None:
        """Start-up is over."""

    def stopping(self) -> None:
        """Shutdown has begun."""

    def status(self, text: str) -> None:
        """The line of ``systemctl status``."""

    def watchdog(self) -> None:
        """The loop turns."""

    def watchdog_interval_seconds(self) -> float | None:
        """How often it wants that; None if never."""


class Publisher:
    """Publishes the dispatcher's state on change, and each second anyway."""

    def __init__(self, writer: SnapshotWriter, notifier: ServiceNotifier) -> None:
        self._writer = writer
        self._notifier = notifier
        self._changed = asyncio.Event()
        self.jobs: Callable[[], GatewayJobs | None] = lambda: None

    def changed(self) -> None:
        """Something is to be published soon."""
        self._changed.set()

    async def run(self, dispatcher: Dispatcher) -> None:
        """Publish until cancelled."""
        while True:
            self.publish(dispatcher)
            await asyncio.sleep(COALESCE_SECONDS)
            try:
                async with asyncio.timeout(PUBLISH_SECONDS - COALESCE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def publish(self, dispatcher: Dispatcher) -> None:
        """Publish now. A folder that can't be written is logged once, and tried again."""
        self._changed.clear()
        data = gateway_data(dispatcher, self.jobs())
        self._notifier.status(status_text(data))
        self._writer.publish_or_say(data)


async def feed_watchdog(notifier: ServiceNotifier) -> None:
    """Prove that this loop turns, as often as the service manager wants it."""
    interval = notifier.watchdog_interval_seconds()
    while interval is not None:
        notifier.watchdog()
        await asyncio.sleep(interval)


def gateway_data(dispatcher: Dispatcher, jobs: GatewayJobs | None = None) -> GatewayData:
    """The state as it is published."""
    statistics, queue = dispatcher.statistics, dispatcher.queue
    pause = dispatcher.running_pause()
    links = sorted(dispatcher.links.values(), key=lambda link: link.number)
    return GatewayData(
        queue_depth=queue.depth,
        queue_limit=dispatcher.settings.queue_limit,
        workers_active=sum(link.seat.serving and not link.seat.drained for link in links),
        accepted=statistics.accepted,
        completed=statistics.completed,
        failed=statistics.failed,
        rejected=statistics.rejected,
        retried=queue.retried,
        mean_response_seconds=statistics.mean_response_seconds,
        p95_response_seconds=statistics.p95_response_seconds,
        batch_limits=batch_limits(dispatcher, links),
        credits=queue.cards.credits,
        drained=sorted(dispatcher.drained),
        paused=pause is not None,
        paused_until=pause.until_unix_microseconds if pause else None,
        workers=[worker_data(link) for link in links],
        jobs=jobs,
    )


def batch_limits(dispatcher: Dispatcher, links: list[WorkerLink]) -> dict[int, int]:
    """How many requests may run together, by card: what its workers take and its heat allows."""
    limits: dict[int, int] = {}
    for link in links:
        card = link.seat.card
        limits[card] = max(limits.get(card, 0), dispatcher.batch_size(link))
    return limits


def worker_data(link: WorkerLink) -> GatewayWorker:
    """One connected worker as it is published."""
    memory, tally, silent = link.memory, link.tally, link.silent_seconds
    stuck = "an execution passed its time limit and has not ended"
    state = cast(Literal["loading", "ready", "busy", "draining"], link.published_state)
    return GatewayWorker(
        number=link.number,
        pid=link.peer.pid,
        state=state,
        outstanding=link.seat.outstanding,
        requests=tally.requests,
        failures=tally.failures,
        last_error=stuck if link.seat.stalled else tally.last_error,
        vram_reserved_bytes=memory.vram_reserved_bytes if memory else None,
        vram_allocated_bytes=memory.vram_allocated_bytes if memory else None,
        vram=memory_of(link),
        server=ServerFigures(**link.server.model_dump()) if link.server else None,
        stalled=link.seat.stalled,
        silent_seconds=None if silent is None else round(silent, 1),
    )


def status_text(data: GatewayData) -> str:
    """The line of ``systemctl status``."""
    ready = data.workers_active
    others = len(data.workers) - ready
    return (
        ("PAUSED, " if data.paused else "")
        + f"{ready} worker{'s' * (ready != 1)} ready"
        + (f", {others} not" if others else "")
        + f", {data.queue_depth} waiting"
        + jobs_text(data.jobs)
    )


def jobs_text(jobs: GatewayJobs | None) -> str:
    """What is to be said of durable jobs; nothing while there are none."""
    if jobs is None:
        return ""
    if jobs.problem:
        return "; " + jobs.problem
    unfinished = jobs.queued + jobs.running
    return f", {unfinished} job{'s' * (unfinished != 1)} to do" if unfinished else ""
