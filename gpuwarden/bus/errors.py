# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N818  each class is named as its error on the bus is
"""Errors of the bus, those we answer with and those that others answer us, in one table."""

from gpuwarden.names import BUS_NAME

_OURS = f"{BUS_NAME}.Error"
_STANDARD = "org.freedesktop.DBus.Error"


class BusError(Exception):
    """A D-Bus error: its name on the wire and a text for people, never a traceback or a path."""

    name: str = f"{_STANDARD}.Failed"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class RemoteError(BusError):
    """An error that a peer answered and that the table below doesn't know; see ``name``."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


class NoSuchWorker(BusError):
    """There is no worker of that number."""

    name = f"{_OURS}.NoSuchWorker"


class NoSuchGpu(BusError):
    """There is no card of that index."""

    name = f"{_OURS}.NoSuchGpu"


class InvalidArgument(BusError):
    """An argument has the right type and a wrong value."""

    name = f"{_OURS}.InvalidArgument"


class Busy(BusError):
    """Another action on the same thing is under way."""

    name = f"{_OURS}.Busy"


class Unavailable(BusError):
    """What would answer is not running, or the service is stopping."""

    name = f"{_OURS}.Unavailable"


class Failed(BusError):
    """It was tried and did not work, or a fault of ours; the journal says more."""

    name = f"{_OURS}.Failed"


class AccessDenied(BusError):
    """The caller may not do this, by the bus policy or by polkit."""

    name = f"{_STANDARD}.AccessDenied"


class InteractiveAuthorizationRequired(BusError):
    """Allowed only to a caller who can be asked for a password."""

    name = f"{_STANDARD}.InteractiveAuthorizationRequired"


class UnknownObject(BusError):
    """No object at that path."""

    name = f"{_STANDARD}.UnknownObject"


class UnknownInterface(BusError):
    """The object has no such interface."""

    name = f"{_STANDARD}.UnknownInterface"


class UnknownMethod(BusError):
    """The interface has no such method."""

    name = f"{_STANDARD}.UnknownMethod"


class UnknownProperty(BusError):
    """The interface has no such property."""

    name = f"{_STANDARD}.UnknownProperty"


class PropertyReadOnly(BusError):
    """Properties are read-only; changes are methods."""

    name = f"{_STANDARD}.PropertyReadOnly"


class InvalidArgs(BusError):
    """The arguments' types are not those of the method."""

    name = f"{_STANDARD}.InvalidArgs"


class LimitsExceeded(BusError):
    """Too large, or too many at once."""

    name = f"{_STANDARD}.LimitsExceeded"


class ServiceUnknown(BusError):
    """Nobody owns that bus name and nobody can be started for it."""

    name = f"{_STANDARD}.ServiceUnknown"


class NameHasNoOwner(ServiceUnknown):
    """Nobody owns that bus name."""

    name = f"{_STANDARD}.NameHasNoOwner"


class CallTimeout(BusError):
    """The peer did not answer in time; what was asked may still happen."""

    name = f"{_STANDARD}.Timeout"


class NoReply(CallTimeout):
    """The peer went away, or the bus stopped waiting for its answer."""

    name = f"{_STANDARD}.NoReply"


class Disconnected(BusError):
    """There is no connection to the bus, or it broke before the answer came."""

    name = f"{_STANDARD}.Disconnected"


class NameTaken(BusError):
    """Another process owns the bus name that we need."""

    name = f"{_STANDARD}.AddressInUse"


ERRORS: dict[str, type[BusError]] = {
    error.name: error
    for error in (
        BusError,
        NoSuchWorker,
        NoSuchGpu,
        InvalidArgument,
        Busy,
        Unavailable,
        Failed,
        AccessDenied,
        InteractiveAuthorizationRequired,
        UnknownObject,
        UnknownInterface,
        UnknownMethod,
        UnknownProperty,
        PropertyReadOnly,
        InvalidArgs,
        LimitsExceeded,
        ServiceUnknown,
        NameHasNoOwner,
        CallTimeout,
        NoReply,
        Disconnected,
    )
}


def error_from(name: str | None, body: list[object]) -> BusError:
    """The exception for an error message; ``body`` may be empty or hold no text."""
    text = body[0] if body and isinstance(body[0], str) else "no text given"
    known = ERRORS.get(name or "")
    return known(text) if known else RemoteError(name or BusError.name, text)
