# SPDX-License-Identifier: Apache-2.0
"""All metrics of the front door: their names, what they mean, their labels.

No text of any request is in a name or a label.
"""

from gpuwarden.exposition.definition import Definitions

METERS = Definitions("gpuwarden_gateway")

_OF_ANSWERS = "Time of answered requests"
QUEUE_WAIT = METERS.histogram(
    "queue_wait_seconds", f"{_OF_ANSWERS} from the body's end to the worker."
)
EXECUTION = METERS.histogram("execution_seconds", f"{_OF_ANSWERS} from the worker to its answer.")
TOTAL = METERS.histogram("total_seconds", f"{_OF_ANSWERS} from the headers to the answer.")
BATCH_SIZE = METERS.histogram("batch_size", "Requests handed to a worker together.")
HTTP_RESPONSES = METERS.counter(
    "http_responses", "HTTP answers by route and status.", "route", "status"
)

REQUESTS = METERS.counter(
    "requests", "Requests by how they ended; rejected ones were never accepted.", "outcome"
)
ACCEPTED = METERS.counter("accepted", "Requests accepted.")
REQUEUES = METERS.counter("requeues", "Requests given back to the queue.")
STALE_RESULTS = METERS.counter("stale_results", "Answers to leases that nobody holds.")
RESULTS_LENT = METERS.counter("results_lent", "Buffers lent for large results.")
RESULTS_REFUSED = METERS.counter("results_refused", "Large results that found no room.")
QUEUE_DEPTH = METERS.gauge("queue_depth", "Requests that wait.")
QUEUE_LIMIT = METERS.gauge("queue_limit", "Requests that may wait.")
QUEUE_BYTES = METERS.gauge("queue_bytes", "Bytes of the requests accepted.")
UPLOADS = METERS.gauge("uploads", "Bodies being received.")
POOL_BYTES = METERS.gauge(
    "pool_bytes", "Memory for bodies: in use, in all, and the limit.", "state"
)
SET_ASIDE = METERS.gauge(
    "set_aside", "Requests that killed three workers and are not tried again for a while."
)
RESULTS_BYTES = METERS.gauge(
    "results_bytes", "Memory for large results on their way: in use, and the limit.", "state"
)
IMAGES = METERS.gauge("images", "Images that can be referred to.")
IMAGES_BYTES = METERS.gauge("images_bytes", "Memory of the images that can be referred to.")

CREDITS = METERS.gauge("credits", "Requests that a card's workers would still take.", "gpu")
WORKERS_READY = METERS.gauge("workers_ready", "Workers of a card that serve.", "gpu")
OUTSTANDING = METERS.gauge("outstanding", "Requests in a card's workers.", "gpu")
DISPATCH_DUTY = METERS.gauge("dispatch_duty", "Share of the time in which a card may work.", "gpu")

WORKER_REQUESTS = METERS.counter("worker_requests", "Requests a worker answered.", "worker")
WORKER_FAILURES = METERS.counter("worker_failures", "Failures of a worker.", "worker")
WORKER_DEVICE_ALLOCS = METERS.counter(
    "worker_device_allocs", "Allocations that went to the card.", "worker", "gpu"
)
WORKER_ALLOC_RETRIES = METERS.counter(
    "worker_alloc_retries", "Allocations after emptying the cache.", "worker", "gpu"
)
WORKER_ALLOCATOR_OOMS = METERS.counter(
    "worker_allocator_ooms", "Allocations that failed.", "worker", "gpu"
)
WORKER_OUT_OF_MEMORY = METERS.counter(
    "worker_out_of_memory",
    "Times that requests ran out of memory, one alone or several together.",
    "worker",
    "gpu",
    "alone",
)
WORKER_VRAM_BYTES = METERS.gauge(
    "worker_vram_bytes",
    "Memory of the card: held by a worker's allocator, in use, and its share of it.",
    "worker",
    "gpu",
    "kind",
)
WORKER_MEMORY_REMEDY = METERS.gauge(
    "worker_memory_remedy",
    "Remedy for want of memory: 0 none, 1 caches, 2 batches, 3 a restart.",
    "worker",
    "gpu",
)
WORKER_SERVER_REQUESTS = METERS.gauge(
    "worker_server_requests",
    "Requests in the server that a worker runs, by its own word.",
    "worker",
    "state",
)
WORKER_SERVER_KV_CACHE_USAGE = METERS.gauge(
    "worker_server_kv_cache_usage", "Share of that server's KV cache that is in use.", "worker"
)

JOBS = METERS.gauge("jobs", "Durable jobs that are kept, by status.", "status")
JOBS_BYTES = METERS.gauge(
    "jobs_bytes", "Disk for jobs: images and answers that are kept, and the limit.", "state"
)
JOBS_AVAILABLE = METERS.gauge("jobs_available", "Whether jobs can be kept at all.")
