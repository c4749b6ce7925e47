"""The front door's counters and gauges, read from where they live."""

from collections import Counter
from collections.abc import Iterable, Iterator

from gpuwarden.control.states import GatewayJobs
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.intake import Intake
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.metrics import Sample


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
        meaning = "Requests by how they ended; rejected ones were never accepted."
        yield "requests", meaning, {"outcome": outcome}, count
    yield "accepted", "Requests accepted.", {}, statistics.accepted
    yield "requeues", "Requests given back to the queue.", {}, dispatcher.queue.retried
    yield "stale_results", "Answers to leases that nobody holds.", {}, statistics.stale_results
    lending = dispatcher.lending
    yield "results_lent", "Buffers lent for large results.", {}, lending.lent
    yield "results_refused", "Large results that found no room.", {}, lending.refused
    for link in dispatcher.links.values():
        worker = {"worker": str(link.number)}
        yield "worker_requests", "Requests a worker answered.", worker, link.tally.requests
        yield "worker_failures", "Failures of a worker.", worker, link.tally.failures
    yield from allocations(dispatcher.links.values())


def gauges(intake: Intake) -> Iterator[Sample]:
    """What goes up and down."""
    dispatcher = intake.dispatcher
    settings, queue, pool = dispatcher.settings, dispatcher.queue, dispatcher.pool
    yield "queue_depth", "Requests that wait.", {}, queue.depth
    yield "queue_limit", "Requests that may wait.", {}, settings.queue_limit
    yield "queue_bytes", "Bytes of the requests accepted.", {}, queue.held_bytes
    yield "uploads", "Bodies being received.", {}, intake.receiving
    meaning = "Memory for bodies: in use, in all, and the limit."
    yield "pool_bytes", meaning, {"state": "in_use"}, pool.in_use_bytes
    yield "pool_bytes", meaning, {"state": "total"}, pool.total_bytes
    yield "pool_bytes", meaning, {"state": "limit"}, pool.limit_bytes
    meaning = "Requests that killed three workers and are not tried again for a while."
    yield "set_aside", meaning, {}, len(dispatcher.set_aside)
    results = dispatcher.lending.pool
    meaning = "Memory for large results on their way: in use, and the limit."
    yield "results_bytes", meaning, {"state": "in_use"}, results.in_use_bytes
    yield "results_bytes", meaning, {"state": "limit"}, results.limit_bytes
    yield "images", "Images that can be referred to.", {}, len(intake.images)
    yield "images_bytes", "Their memory.", {}, intake.images.held_bytes
    serving, running = Counter[int](), Counter[int]()
    for link in dispatcher.links.values():
        card = link.seat.card
        serving[card] += link.seat.serving
        running[card] += link.seat.outstanding
    for link in dispatcher.links.values():
        yield from _of_server(link)
    for card, credit in queue.cards.credits.items():
        gpu = {"gpu": str(card)}
        yield "credits", "Requests that a card's workers would still take.", gpu, credit
        yield "workers_ready", "Workers of a card that serve.", gpu, serving[card]
        yield "outstanding", "Requests in a card's workers.", gpu, running[card]
        duty = queue.cards[card].limits.duty
        yield "dispatch_duty", "Share of the time in which a card may work.", gpu, duty
    yield from memory(dispatcher.links.values())


def allocations(links: Iterable[WorkerLink]) -> Iterator[Sample]:
    """What the workers' allocators count, each from its worker's start."""
    for link in links:
        figures, worker = link.figures, _worker_on_card(link)
        if figures is None:
            continue
        counts = (
            ("device_allocs", "Allocations that went to the card.", figures.num_device_alloc),
            ("alloc_retries", "Allocations after emptying the cache.", figures.num_alloc_retries),
            ("allocator_ooms", "Allocations that failed.", figures.num_ooms),
        )
        for name, meaning, count in counts:
            if count is not None:
                yield f"worker_{name}", meaning, worker, count
        meaning = "Times that requests ran out of memory, one alone or several together."
        yield "worker_out_of_memory", meaning, {**worker, "alone": "false"}, figures.shortages
        yield "worker_out_of_memory", meaning, {**worker, "alone": "true"}, figures.shortages_alone


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
        meaning = "Memory of the card: held by a worker's allocator, in use, and its share of it."
        for kind, size in held.items():
            if size is not None:
                yield "worker_vram_bytes", meaning, {**worker, "kind": kind}, size
        if figures is not None:
            meaning = "Remedy for want of memory: 0 none, 1 caches, 2 batches, 3 a restart."
            yield "worker_memory_remedy", meaning, worker, link.relief.step


def _worker_on_card(link: WorkerLink) -> dict[str, str]:
    return {"worker": str(link.number), "gpu": str(link.seat.card)}


def _of_server(link: WorkerLink) -> Iterator[Sample]:
    """What the server that a worker runs says of itself."""
    if link.server is None:
        return
    meaning = "Requests in the server that a worker runs, by its own word."
    for state, value in (("running", link.server.running), ("waiting", link.server.waiting)):
        if value is not None:
            labels = {"worker": str(link.number), "state": state}
            yield "worker_server_requests", meaning, labels, value
    if link.server.kv_cache_usage is not None:
        meaning = "Share of that server's KV cache that is in use."
        worker = {"worker": str(link.number)}
        yield "worker_server_kv_cache_usage", meaning, worker, link.server.kv_cache_usage


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
        yield "jobs", "Durable jobs that are kept, by status.", {"status": status}, count
    meaning = "Disk for jobs: images and answers that are kept, and the limit."
    yield "jobs_bytes", meaning, {"state": "stored"}, jobs.stored_bytes
    yield "jobs_bytes", meaning, {"state": "limit"}, jobs.limit_bytes
    yield "jobs_available", "Whether jobs can be kept at all.", {}, not jobs.problem
