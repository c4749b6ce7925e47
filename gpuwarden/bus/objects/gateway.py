"""org.gpuwarden1.Gateway: the front door's queue and counters."""

from collections.abc import Callable

from gpuwarden.bus.interface import Emits, Interface, Property
from gpuwarden.control.states import GatewayData
from gpuwarden.names import BUS_NAME


def _property(
    name: str, signature: str, emits: Emits, read: Callable[[GatewayData], object], doc: str
) -> Property[GatewayData | None]:
    """A property that is unknown while the gateway is not running."""
    return Property(name, signature, emits, lambda data: None if data is None else read(data), doc)


GATEWAY: Interface[GatewayData | None] = Interface(
    f"{BUS_NAME}.Gateway",
    "The front door: its queue and counters, since it started. All 0 while it is not running.",
    properties=(
        _property(
            "QueueDepth", "u", Emits.FALSE, lambda data: data.queue_depth, "Requests waiting."
        ),
        _property(
            "QueueLimit",
            "u",
            Emits.TRUE,
            lambda data: data.queue_limit,
            "Requests that may wait; more are refused.",
        ),
        _property(
            "WorkersActive",
            "u",
            Emits.TRUE,
            lambda data: data.workers_active,
            "Workers connected and able to answer.",
        ),
        _property("Accepted", "u", Emits.FALSE, lambda data: data.accepted, "Requests taken in."),
        _property("Completed", "u", Emits.FALSE, lambda data: data.completed, "Requests answered."),
        _property("Failed", "u", Emits.FALSE, lambda data: data.failed, "Requests that failed."),
        _property(
            "Rejected",
            "u",
            Emits.FALSE,
            lambda data: data.rejected,
            "Requests refused at the door: queue full, too large, or not understood.",
        ),
        _property(
            "Retried",
            "u",
            Emits.FALSE,
            lambda data: data.retried,
            "Requests given to another worker after theirs died.",
        ),
        _property(
            "MeanResponseSeconds",
            "d",
            Emits.FALSE,
            lambda data: data.mean_response_seconds,
            "Mean time from request to answer; NaN: unknown.",
        ),
        _property(
            "P95ResponseSeconds",
            "d",
            Emits.FALSE,
            lambda data: data.p95_response_seconds,
            "Time within which 95 of 100 requests are answered; NaN: unknown.",
        ),
        _property(
            "BatchLimits",
            "a{uu}",
            Emits.TRUE,
            lambda data: data.batch_limits,
            "Requests that may run together, by card index.",
        ),
    ),
)
