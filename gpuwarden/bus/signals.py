# SPDX-License-Identifier: Apache-2.0
"""Signals of others: subscriptions that outlive connections, from senders that are who they say."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gpuwarden.bus.errors import BusError, NameHasNoOwner
from gpuwarden.bus.library import Message
from gpuwarden.bus.wire import plain

logger = logging.getLogger(__name__)

DAEMON = "org.freedesktop.DBus"
DAEMON_PATH = "/org/freedesktop/DBus"
_NAME_OWNER_CHANGED = "NameOwnerChanged"


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that arrived; ``body`` with every variant replaced by its value."""

    sender: str
    path: str
    interface: str
    member: str
    signature: str
    body: list[Any]


Handler = Callable[[Signal], None]
# Calls a method of the bus daemon: member, signature, body.
DaemonCall = Callable[[str, str, list[Any]], Awaitable[list[Any]]]


@dataclass(frozen=True, eq=False, slots=True)
class Subscription:
    """What is listened for; None matches anything. ``sender`` may be a well-known name."""

    sender: str | None
    path: str | None
    interface: str | None
    member: str | None
    handler: Handler

    def rule(self) -> str:
        """As a match rule of the bus daemon."""
        fields = {
            "sender": self.sender,
            "path": self.path,
            "interface": self.interface,
            "member": self.member,
        }
        return _rule(fields)

    def fits(self, signal: Signal) -> bool:
        """Whether path, interface and member match (the sender is the router's to judge)."""
        wanted = (self.path, self.interface, self.member)
        seen = (signal.path, signal.interface, signal.member)
        return all(want in (None, see) for want, see in zip(wanted, seen, strict=True))


class SignalRouter:
    """Hands each signal to those who subscribed to it.

    The bus lets anyone send a signal to one connection with any interface and member in it, so the
    sender is checked against the owner of the name that was subscribed to, kept current.
    """

    def __init__(self, call_daemon: DaemonCall) -> None:
        self._call_daemon = call_daemon
        self._subscriptions: list[Subscription] = []
        self._unasked: list[Subscription] = []
        self._owners: dict[str, str | None] = {}  # None: asked, not answered yet

    async def add(self, subscription: Subscription) -> None:
        """Listen from now on; raises BusError if the bus can't be told."""
        self._subscriptions.append(subscription)
        try:
            await self._listen(subscription)
        except BusError:
            self._subscriptions.remove(subscription)
            raise

    def watch(self, subscription: Subscription) -> None:
        """Listen for what the bus daemon sends us unasked: no match rule is made."""
        self._unasked.append(subscription)

    async def remove(self, subscription: Subscription) -> None:
        """Stop listening. Raises BusError if the bus can't be told; nothing is handed on then."""
        self._subscriptions.remove(subscription)
        await self._call_daemon("RemoveMatch", "s", [subscription.rule()])

    def owner(self, name: str) -> str:
        """Who owns ``name`` now, as far as something of it is listened for; empty: nobody."""
        return self._owners.get(name) or ""

    async def restore(self) -> None:
        """Tell a new bus everything that is listened for. Raises BusError."""
        self._owners.clear()
        for subscription in list(self._subscriptions):
            await self._listen(subscription)

    def dispatch(self, message: Message) -> None:
        """Hand a received signal on. A handler's fault is logged, and stops no other handler."""
        signal = Signal(
            sender=message.sender or "",
            path=message.path,
            interface=message.interface,
            member=message.member,
            signature=message.signature,
            body=[plain(item) for item in message.body],
        )
        self._follow_owner(signal)
        for subscription in (*self._subscriptions, *self._unasked):
            if subscription.fits(signal) and self._is_from(subscription.sender, signal.sender):
                try:
                    subscription.handler(signal)
                except Exception:  # one listener's fault is not the next one's
                    logger.exception("a listener for %s.%s", signal.interface, signal.member)

    async def _listen(self, subscription: Subscription) -> None:
        sender = subscription.sender
        if sender is not None and _is_well_known(sender) and sender not in self._owners:
            await self._follow(sender)
        await self._call_daemon("AddMatch", "s", [subscription.rule()])

    async def _follow(self, name: str) -> None:
        self._owners[name] = None
        try:
            await self._call_daemon("AddMatch", "s", [_owner_rule(name)])
            owner = await self._owner(name)
        except BaseException:
            self._owners.pop(name, None)
            raise
        # A change that came between the bus's answer and this line is newer than the answer.
        if self._owners.get(name) is None:
            self._owners[name] = owner

    async def _owner(self, name: str) -> str:
        try:
            (owner,) = await self._call_daemon("GetNameOwner", "s", [name])
        except NameHasNoOwner:
            return ""  # not running yet; NameOwnerChanged will tell
        return str(owner)

    def _follow_owner(self, signal: Signal) -> None:
        if (signal.sender, signal.member) == (DAEMON, _NAME_OWNER_CHANGED):
            name, _, owner = signal.body
            if name in self._owners:
                self._owners[name] = owner

    def _is_from(self, wanted: str | None, sender: str) -> bool:
        if wanted is None:
            return True
        return sender == (self._owners.get(wanted) if _is_well_known(wanted) else wanted)


def _is_well_known(name: str) -> bool:
    return not name.startswith(":") and name != DAEMON


def _owner_rule(name: str) -> str:
    return _rule(
        {
            "sender": DAEMON,
            "path": DAEMON_PATH,
            "interface": DAEMON,
            "member": _NAME_OWNER_CHANGED,
            "arg0": name,
        }
    )


def _rule(fields: dict[str, str | None]) -> str:
    parts = ["type='signal'"]
    for key, value in fields.items():
        if value is not None:
            if "'" in value:
                raise ValueError(f"{key} of a match rule can't hold a quote: {value!r}")
            parts.append(f"{key}='{value}'")
    return ",".join(parts)
