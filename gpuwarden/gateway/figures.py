# SPDX-License-Identifier: Apache-2.0
"""The front door's counters and gauges, read from where they live."""

from collections import Counter
from collections.abc import Iterable, Iterator

from gpuwarden.control.states import GatewayJobs
from gpuwarden.exposition.definition import Sample
from gpuwarden.gateway import meters
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.intake import Intake
from gpuwarden.gateway.link import WorkerLink


def counters(dispatcher: Dispatcher) -> Iterator[Sample]:
    """What only grows."""
    statistics = dispatcher.statistics
    outcomes = {
        "completed": statistics.completed,
        "failed": statistics.failed,
        "rejected": statistics.rejected,
        "cancelled": statistics.cancelled,
    }
    for outcome, count in outcomes.items():
        yield meters.REQUESTS(count, outcome)
    yield meters.ACCEPTED(statistics.accepted)
    yield meters.REQUEUES(dispatcher.queue.retried)
    yield meters.STALE_RESULTS(statistics.stale_results)
    yield meters.RESULTS_LENT(dispatcher.lending.lent)
    yield meters.RESULTS_REFUSED(dispatcher.lending.refused)
    for link in dispatcher.links.values():
        yield meters.WORKER_REQUESTS(link.tally.requests, link.number)
        yield meters.WORKER_FAILURES(link.tally.failures, link.number)
    yield from allocations(dispatcher.links.values())


def gauges(intake: Intake) -> Iterator[Sample]:
    """What goes up and down."""
    dispatcher = intake.dispatcher
    queue, pool = dispatcher.queue, dispatcher.pool
    yield meters.QUEUE_DEPTH(queue.depth)
    yield meters.QUEUE_LIMIT(dispatcher.settings.queue_limit)
    yield meters.QUEUE_BYTES(queue.held_bytes)
    yield meters.UPLOADS(intake.receiving)
    yield meters.POOL_BYTES(pool.in_use_bytes, "in_use")
    yield meters.POOL_BYTES(pool.total_bytes, "total")
    yield meters.POOL_BYTES(pool.limit_bytes, "limit")
    yield meters.SET_ASIDE(len(dispatcher.set_aside))
    results = dispatcher.lending.pool
    yield meters.RESULTS_BYTES(results.in_use_bytes, "in_use")
    yield meters.RESULTS_BYTES(results.limit_bytes, "limit")
    yield meters.IMAGES(len(intake.images))
    yield meters.IMAGES_BYTES(intake.images.held_bytes)
    yield from _of_cards(dispatcher)
    yield from memory(dispatcher.links.values())


def _of_cards(dispatcher: Dispatcher) -> Iterator[Sample]:
    queue = dispatcher.queue
    serving, running = Counter[int](), Counter[int]()
    for link in dispatcher.links.values():
        card = link.seat.card
        serving[card] += link.seat.serving
        running[card] += link.seat.outstanding
        yield from _of_server(link)
    for card, credit in queue.cards.credits.items():
        yield meters.CREDITS(credit, card)
        yield meters.WORKERS_READY(serving[card], card)
        yield meters.OUTSTANDING(running[card], card)
        yield meters.DISPATCH_DUTY(queue.cards[card].limits.duty, card)


def allocations(links: Iterable[WorkerLink]) -> Iterator[Sample]:
    """What the workers' allocators count, each from its worker's start."""
    for link in links:
        figures, worker = link.figures, _worker_on_card(link)
        if figures is None:
            continue
        yield from meters.WORKER_DEVICE_ALLOCS.known(figures.num_device_alloc, *worker)
        yield from meters.WORKER_ALLOC_RETRIES.known(figures.num_alloc_retries, *worker)
        yield from meters.WORKER_ALLOCATOR_OOMS.known(figures.num_ooms, *worker)
        yield meters.WORKER_OUT_OF_MEMORY(figures.shortages, *worker, "false")
        yield meters.WORKER_OUT_OF_MEMORY(figures.shortages_alone, *worker, "true")


def memory(links: Iterable[WorkerLink]) -> Iterator[Sample]:
    """What the workers hold of their cards, and what is done about it."""
    for link in links:
        worker, figures = _worker_on_card(link), link.figures
        held: dict[str, int | None] = {}
        if link.memory is not None:
            held["reserved"] = link.memory.vram_reserved_bytes
            held["allocated"] = link.memory.vram_allocated_bytes
        if figures is not None:
            held["peak"] = figures.peak_bytes
            held["inactive_split"] = figures.inactive_split_bytes
            held["limit"] = figures.limit_bytes
        for kind, size in held.items():
            yield from meters.WORKER_VRAM_BYTES.known(size, *worker, kind)
        if figures is not None:
            yield meters.WORKER_MEMORY_REMEDY(link.relief.step, *worker)


def _worker_on_card(link: WorkerLink) -> tuple[int, int]:
    return link.number, link.seat.card


def _of_server(link: WorkerLink) -> Iterator[Sample]:
    """What the server that a worker runs says of itself."""
    server, worker = link.server, link.number
    if server is None:
        return
    yield from meters.WORKER_SERVER_REQUESTS.known(server.running, worker, "running")
    yield from meters.WORKER_SERVER_REQUESTS.known(server.waiting, worker, "waiting")
    yield from meters.WORKER_SERVER_KV_CACHE_USAGE.known(server.kv_cache_usage, worker)


def of_jobs(jobs: GatewayJobs) -> Iterator[Sample]:
    """The durable jobs that are kept."""
    counts = {
        "queued": jobs.queued,
        "running": jobs.running,
        "succeeded": jobs.succeeded,
        "failed": jobs.failed,
        "cancelled": jobs.cancelled,
    }
    for status, count in counts.items():
        yield meters.JOBS(count, status)
    yield meters.JOBS_BYTES(jobs.stored_bytes, "stored")
    yield meters.JOBS_BYTES(jobs.limit_bytes, "limit")
    yield meters.JOBS_AVAILABLE(not jobs.problem)
