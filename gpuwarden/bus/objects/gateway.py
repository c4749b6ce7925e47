# SPDX-License-Identifier: Apache-2.0
"""org.gpuwarden1.Gateway: the front door's queue and counters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gpuwarden.bus.interface import Argument, Emits, Handler, Interface, Method, Property
from gpuwarden.control.states import GatewayData
from gpuwarden.names import BUS_NAME, MANAGE_GATEWAY_ACTION


class GatewayCommands(Protocol):
    """What answers the methods below. Each raises BusError."""

    async def pause(self, seconds: int) -> None:
        """Refuse new requests for so long."""

    async def resume(self) -> None:
        """End a pause now."""


def gateway_handlers(commands: GatewayCommands) -> Mapping[str, Handler]:
    """What answers each method of the interface."""

    async def pause(seconds: int) -> Sequence[object]:
        await commands.pause(seconds)
        return ()

    async def resume() -> Sequence[object]:
        await commands.resume()
        return ()

    return {"Pause": pause, "Resume": resume}


def _property(
    name: str, signature: str, emits: Emits, read: Callable[[GatewayData], object], doc: str
) -> Property[GatewayData | None]:
    """A property that is unknown while the gateway is not running."""
    return Property(name, signature, emits, lambda data: None if data is None else read(data), doc)


GATEWAY: Interface[GatewayData | None] = Interface(
    f"{BUS_NAME}.Gateway",
    "The front door: its queue and counters, since it started. All 0 while it is not running.",
    methods=(
        Method(
            "Pause",
            "Refuse new requests for 1 to 86400 seconds; those accepted are answered. Outlives "
            "caller, guard and gateway; ends by itself or with Resume. A later one replaces it.",
            inputs=(Argument("seconds", "u"),),
            action=MANAGE_GATEWAY_ACTION,
        ),
        Method(
            "Resume",
            "End a pause now; no error if there is none.",
            action=MANAGE_GATEWAY_ACTION,
        ),
    ),
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
