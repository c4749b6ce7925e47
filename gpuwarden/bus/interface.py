# SPDX-License-Identifier: Apache-2.0
"""What an interface is: its members, typed, named and documented, as one table that all else reads.

Dispatch, introspection, the shipped XML, change signals and the access rule come from the same
table, so that none of them can forget a member.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar

from gpuwarden.bus.errors import UnknownMethod, UnknownProperty
from gpuwarden.bus.library import Variant
from gpuwarden.bus.wire import to_variant, to_wire

Subject = TypeVar("Subject")

# What answers a method: gets the arguments, gives the outputs (or an awaitable of them).
Handler = Callable[..., Sequence[object] | Awaitable[Sequence[object]]]
# What takes a property's new value, which has the property's type. Raises BusError.
Setter = Callable[[Any], None]


class Emits(StrEnum):
    """The EmitsChangedSignal annotation: what a client learns when the property changes."""

    CONST = "const"  # never changes while the object exists
    TRUE = "true"  # the new value comes with the signal
    INVALIDATES = "invalidates"  # the signal only names it
    FALSE = "false"  # volatile: ask again


@dataclass(frozen=True, slots=True)
class Argument:
    """A named, typed argument."""

    name: str
    signature: str


@dataclass(frozen=True, slots=True)
class Property(Generic[Subject]):
    """A property: how to get it from its subject, which must never fail.

    ``action``: the polkit action that a caller must hold to write it; None: it is read-only, as all
    of ours are. What D-Bus's own conventions make writable gets a setter when it is exported.
    """

    name: str
    signature: str
    emits: Emits
    read: Callable[[Subject], object]
    doc: str
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Method(Generic[Subject]):
    """A method.

    ``action``: the polkit action that a caller must hold; None only for methods that read.
    ``answer``: for methods that only read, the outputs from the subject; others get a handler when
    the object is exported.
    """

    name: str
    doc: str
    inputs: tuple[Argument, ...] = ()
    outputs: tuple[Argument, ...] = ()
    action: str | None = None
    answer: Callable[[Subject], Sequence[object]] | None = None

    @property
    def input_signature(self) -> str:
        """The signature of all inputs."""
        return "".join(argument.signature for argument in self.inputs)

    @property
    def output_signature(self) -> str:
        """The signature of all outputs."""
        return "".join(argument.signature for argument in self.outputs)

    def output_body(self, outputs: Sequence[object]) -> list[Any]:
        """``outputs`` as a message body."""
        return _body(self.outputs, outputs)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal."""

    name: str
    doc: str
    arguments: tuple[Argument, ...]

    @property
    def signature(self) -> str:
        """The signature of all arguments."""
        return "".join(argument.signature for argument in self.arguments)

    def body(self, values: Sequence[object]) -> list[Any]:
        """``values`` as a message body."""
        return _body(self.arguments, values)


@dataclass(frozen=True)
class Interface(Generic[Subject]):
    """An interface over subjects of one type."""

    name: str
    doc: str
    methods: tuple[Method[Subject], ...] = ()
    properties: tuple[Property[Subject], ...] = ()
    signals: tuple[Signal, ...] = ()

    def method(self, name: str) -> Method[Subject]:
        """The method ``name``. Raises UnknownMethod."""
        if name not in self._methods:
            raise UnknownMethod(f"{self.name} has no method {name}")
        return self._methods[name]

    def property_named(self, name: str) -> Property[Subject]:
        """The property ``name``. Raises UnknownProperty."""
        if name not in self._properties:
            raise UnknownProperty(f"{self.name} has no property {name}")
        return self._properties[name]

    def signal(self, name: str) -> Signal:
        """The signal ``name``. Raises KeyError."""
        return self._signals[name]

    def values(self, subject: Subject) -> dict[str, Any]:
        """All properties of ``subject``, as wire values by name."""
        return {each.name: to_wire(each.signature, each.read(subject)) for each in self.properties}

    @cached_property
    def _methods(self) -> Mapping[str, Method[Subject]]:
        return {method.name: method for method in self.methods}

    @cached_property
    def _properties(self) -> Mapping[str, Property[Subject]]:
        return {each.name: each for each in self.properties}

    @cached_property
    def _signals(self) -> Mapping[str, Signal]:
        return {signal.name: signal for signal in self.signals}


@dataclass(frozen=True)
class Exported(Generic[Subject]):
    """An interface bound to what it shows, to handlers for what acts, setters for what is written.

    Raises ValueError if one is missing or too many.
    """

    interface: Interface[Subject]
    subject: Callable[[], Subject]
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    setters: Mapping[str, Setter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        writable = {each.name for each in self.interface.properties if each.action is not None}
        if writable != self.setters.keys():
            raise ValueError(f"{self.interface.name} needs a setter for what is written, no other")
        for method in self.interface.methods:
            if (method.answer is None) == (method.name not in self.handlers):
                raise ValueError(
                    f"{self.interface.name}.{method.name} needs either an answer in its table or a "
                    f"handler where it is exported"
                )
            if method.answer is not None and method.action is not None:
                raise ValueError(f"{self.interface.name}.{method.name} acts, so it needs a handler")

    def value(self, name: str) -> Variant:
        """The property ``name`` now. Raises UnknownProperty."""
        found = self.interface.property_named(name)
        return to_variant(found.signature, found.read(self.subject()))

    def values(self) -> dict[str, Variant]:
        """All properties now."""
        subject = self.subject()
        return {
            each.name: to_variant(each.signature, each.read(subject))
            for each in self.interface.properties
        }

    def handler(self, method: Method[Subject]) -> Handler:
        """What answers ``method``."""
        if method.answer is None:
            return self.handlers[method.name]
        answer = method.answer
        return lambda: answer(self.subject())


def _body(arguments: tuple[Argument, ...], values: Sequence[object]) -> list[Any]:
    pairs = zip(arguments, values, strict=True)
    return [to_wire(argument.signature, value) for argument, value in pairs]
