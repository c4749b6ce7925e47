# SPDX-License-Identifier: Apache-2.0
"""The bus as the rest of the package sees it: calls, subscriptions, objects and a name that last.

A supervising task reconnects whenever the bus daemon goes away. What is exported, subscribed to
and named is ours, not the connection's, and is there again on the next one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from gpuwarden.bus.connection import DEFAULT_CALL_SECONDS, HardenedMessageBus
from gpuwarden.bus.errors import BusError, Disconnected
from gpuwarden.bus.interface import Signal as SignalEntry
from gpuwarden.bus.library import Message, MessageFlag
from gpuwarden.bus.naming import NameClaim
from gpuwarden.bus.serving import Authorize, CallServer
from gpuwarden.bus.signals import DAEMON, DAEMON_PATH, Handler, SignalRouter, Subscription
from gpuwarden.bus.tree import ObjectTree
from gpuwarden.bus.wire import plain
from gpuwarden.names import ROOT_OBJECT

logger = logging.getLogger(__name__)

# The promise is names, objects and signals back within 2 s of the bus: a try at least each 0.5 s.
FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 0.5

# Methods under way when we stop get this long to end by themselves.
DRAIN_SECONDS = 2.0

ConnectHook = Callable[[], Awaitable[None]]


class Bus:
    """Our place on the bus.

    :param address: of the bus; None for the system bus.
    :param objects: what we export.
    """

    def __init__(self, address: str | None = None, objects: ObjectTree | None = None) -> None:
        self.objects = objects or ObjectTree(ROOT_OBJECT)
        self._address = address
        self._server = CallServer(self.objects)
        self._router = SignalRouter(self._call_daemon)
        self._connection: HardenedMessageBus | None = None
        self._claim: NameClaim | None = None
        self._claiming: asyncio.Task[None] | None = None
        self._hooks: list[ConnectHook] = []
        self._up = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._problem = "not connected yet"

    @property
    def connected(self) -> bool:
        """Whether there is a connection with everything restored on it."""
        return self._up.is_set()

    @property
    def name_owned(self) -> bool:
        """Whether the name asked for with :meth:`own_name` is ours now."""
        return self._claim is not None and self._claim.owned.is_set()

    @property
    def unique_name(self) -> str | None:
        """Our name on this connection, such as ``:1.42``."""
        return self._connection.unique_name if self._connection else None

    @property
    def problem(self) -> str:
        """Why there is no connection, or no name, in words; empty when all is well."""
        if not self.connected:
            return self._problem
        if self._claim is not None and self._claim.problem is not None:
            return str(self._claim.problem)
        return ""

    def authorize_by(self, authorize: Authorize) -> None:
        """Have ``authorize`` asked before any method that changes something.

        Until then nobody may. It may ask over this very bus.
        """
        self._server.authorize = authorize

    def on_connect(self, hook: ConnectHook) -> None:
        """Await ``hook`` on each connection, before it counts as connected.

        For what a peer must be told again by each of its clients (systemd's ``Subscribe``).
        """
        self._hooks.append(hook)

    async def connect(self, timeout_seconds: float = 10.0) -> None:
        """Connect, and stay connected until :meth:`close`.

        :raises Disconnected: not within ``timeout_seconds``; it is tried on all the same.
        """
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name="bus supervisor")
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._up.wait()
        except TimeoutError:
            raise Disconnected(
                f"no connection to the bus in {timeout_seconds:g} s: {self._problem}"
            ) from None

    async def own_name(self, name: str, timeout_seconds: float = 10.0) -> None:
        """Own ``name`` from now on, again after each reconnection.

        :raises BusError: not within ``timeout_seconds`` (AccessDenied: the policy; NameTaken:
            another has it); it is tried on all the same.
        """
        if self._claim is None:
            self._claim = NameClaim(name, self._call_daemon)
            self._router.watch(self._claim.subscription())
            if self.connected:
                self._start_claiming()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._claim.owned.wait()
        except TimeoutError:
            raise self._claim.problem or Disconnected(self._problem) from None

    async def close(self) -> None:
        """Answer what is being served, give up name and connection."""
        for task in (self._supervisor, self._claiming):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._supervisor = self._claiming = None
        self._up.clear()
        await self._server.drain(DRAIN_SECONDS)
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        timeout_seconds: float = DEFAULT_CALL_SECONDS,
        *,
        interactive: bool = False,
    ) -> list[Any]:
        """Call a method of a peer; its answer with variants replaced by their values.

        ``body`` holds Variant where ``signature`` says v. ``interactive``: polkit may ask somebody.

        :raises BusError: what the peer answered, CallTimeout, or Disconnected.
        """
        if self._connection is None:
            raise Disconnected(f"no connection to the bus: {self._problem}")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body or [],
        )
        if interactive:
            message.flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
        answer = await self._connection.call_method(message, timeout_seconds)
        return [plain(item) for item in answer.body]

    async def subscribe(
        self,
        sender: str | None,
        path: str | None,
        interface: str | None,
        member: str | None,
        handler: Handler,
    ) -> Subscription:
        """Hear signals, on this connection and all later ones; None matches anything.

        When this returns, the bus knows: what is caused afterwards can't be missed, except while
        there is no connection.

        :raises BusError: the bus refused or is not there.
        """
        subscription = Subscription(sender, path, interface, member, handler)
        await self._router.add(subscription)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Hear no more. Raises BusError if the bus could not be told."""
        await self._router.remove(subscription)

    def owner(self, name: str) -> str:
        """Who owns the name of a peer whose signals we hear; empty where nobody does."""
        return self._router.owner(name)

    def emit(self, path: str, interface: str, signal: SignalEntry, *values: object) -> None:
        """Send a signal to whoever the bus policy lets hear it; dropped without a connection."""
        if self._connection is not None:
            self._connection.send(
                Message.new_signal(
                    path, interface, signal.name, signal.signature, signal.body(values)
                )
            )

    async def _call_daemon(self, member: str, signature: str, body: list[Any]) -> list[Any]:
        return await self.call(DAEMON, DAEMON_PATH, DAEMON, member, signature, body)

    async def _supervise(self) -> None:
        delay_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                await self._serve_connection()
                delay_seconds = FIRST_RETRY_SECONDS
            except (OSError, BusError) as error:
                if str(error) != self._problem:
                    logger.warning("no connection to the bus, trying again: %s", error)
                self._problem = str(error)
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(delay_seconds * 2, LAST_RETRY_SECONDS)

    async def _serve_connection(self) -> None:
        """One connection from open to lost. Raises OSError or BusError if it never came up."""
        connection = HardenedMessageBus(self._address, self._server, self._router.dispatch)
        await connection.open()
        self._connection = connection
        try:
            await self._restore()
            self._up.set()
            self._start_claiming()
            reason = await asyncio.shield(connection.closed)
        except BusError:
            self._connection = None
            await connection.close()
            raise
        self._up.clear()
        self._connection = None
        self._problem = reason
        logger.warning("the bus connection is lost (%s), connecting again", reason)

    async def _restore(self) -> None:
        await self._router.restore()
        for hook in self._hooks:
            try:
                await hook()
            except Exception:  # a peer that can't be told must not keep us off the bus
                logger.exception("a hook for new bus connections failed")

    def _start_claiming(self) -> None:
        if self._claim is not None:
            if self._claiming is not None:
                self._claiming.cancel()
            self._claiming = asyncio.create_task(self._claim.keep(), name="bus name")
