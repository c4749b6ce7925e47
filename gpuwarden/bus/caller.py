# SPDX-License-Identifier: Apache-2.0
"""Who is calling and what for, known to a method however deep it runs."""

from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller: its unique bus name (written by the bus daemon) and whether it can be asked."""

    sender: str
    interactive: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A call that would change something: what permission is asked for.

    :ivar action: the polkit action.
    :ivar method: such as ``Thermal.Override``.
    """

    action: str
    path: str
    method: str
    arguments: tuple[object, ...] = ()


# A context variable, not an attribute: methods that run at the same time each see their own.
_current: ContextVar[Caller] = ContextVar("gpuwarden_bus_caller")


def current_caller() -> Caller:
    """The caller of the method that is being answered. Raises LookupError outside of one."""
    return _current.get()


def context_of(caller: Caller) -> Context:
    """A context in which :func:`current_caller` is ``caller``."""
    context = copy_context()
    context.run(_current.set, caller)
    return context
