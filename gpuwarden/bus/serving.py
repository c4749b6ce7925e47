# SPDX-License-Identifier: Apache-2.0
"""Answering one call: route, authorise, run as its caller, and reply whatever happens."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from gpuwarden.bus.caller import Caller, Change, context_of
from gpuwarden.bus.errors import AccessDenied, BusError, Failed, LimitsExceeded, Unavailable
from gpuwarden.bus.framing import Frame
from gpuwarden.bus.library import Message, MessageFlag
from gpuwarden.bus.tree import ObjectTree, Route
from gpuwarden.bus.wire import parse_body, plain

logger = logging.getLogger(__name__)

# Changes that wait (for systemd, for a card) at the same time, all callers together. A person at a
# keyboard needs one; the limit keeps a script in a loop from filling memory.
MAX_RUNNING_CALLS = 64
# Those, and calls of which it is not yet known who calls and whether that one may: so many that who
# may not does not keep out who may. The bus lets a user have 256 connections.
MAX_PENDING_CALLS = 1024

Authorize = Callable[[Caller, Change], Awaitable[None]]


class Replies(Protocol):
    """Where answers go: the connection that the call came by."""

    def send(self, message: Message) -> None:
        """Send, or drop if the connection is gone."""


async def refuse_all(_caller: Caller, change: Change) -> None:
    """The authoriser where there is no other: nobody may change anything."""
    raise AccessDenied(f"nobody may do {change.action}: no authority to ask is set up")


class CallServer:
    """Answers calls to one object tree.

    :param authorize: asked before any method that has an action; raises AccessDenied if the caller
        may not.
    """

    def __init__(self, objects: ObjectTree, authorize: Authorize = refuse_all) -> None:
        self._objects = objects
        self.authorize = authorize
        self._pending: set[asyncio.Task[None]] = set()
        self._running = 0

    def serve(self, call: Message, frame: Frame, replies: Replies) -> None:
        """Answer ``call``, whose body is still in ``frame``; at once, or by a task."""
        try:
            if frame.oversized:
                raise LimitsExceeded("the call is too large")
            route = self._objects.resolve(call.path, call.interface, call.member, call.signature)
            arguments = parse_body(frame, call)
            self._run(call, route, arguments, replies)
        except Exception as error:  # noqa: BLE001  any fault of ours must still be answered
            _answer_error(call, error, replies)

    async def drain(self, timeout_seconds: float) -> None:
        """Let running methods end; after ``timeout_seconds`` cancel them, which is answered too."""
        if self._pending:
            _, late = await asyncio.wait(self._pending, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _run(self, call: Message, route: Route, arguments: list[Any], replies: Replies) -> None:
        caller = Caller(
            sender=call.sender or "",
            interactive=bool(call.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION),
        )
        context = context_of(caller)
        action = route.action(*arguments)
        if action is None:
            result = context.run(route.handler, *arguments)
            if not isinstance(result, Awaitable):
                _answer(call, route, result, replies)
                return
        else:
            interface = (call.interface or "").rpartition(".")[2]
            method = f"{interface}.{call.member}".lstrip(".")
            change = Change(action, call.path, method, tuple(map(plain, arguments)))
            result = self._authorized(caller, change, route, arguments)
        if len(self._pending) >= MAX_PENDING_CALLS:
            if asyncio.iscoroutine(result):
                result.close()
            raise LimitsExceeded(f"{MAX_PENDING_CALLS} calls are under way already; try again")
        task = asyncio.get_running_loop().create_task(
            _finish(call, route, result, replies), context=context
        )
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _authorized(
        self, caller: Caller, change: Change, route: Route, arguments: list[Any]
    ) -> Sequence[object]:
        await self.authorize(caller, change)
        if self._running >= MAX_RUNNING_CALLS:
            raise LimitsExceeded(f"{MAX_RUNNING_CALLS} calls are under way already; try again")
        self._running += 1
        try:
            result = route.handler(*arguments)
            return await result if isinstance(result, Awaitable) else result
        finally:
            self._running -= 1


async def _finish(
    call: Message, route: Route, result: Awaitable[Sequence[object]], replies: Replies
) -> None:
    try:
        _answer(call, route, await result, replies)
    except asyncio.CancelledError:
        # Stock dbus-next leaves the caller of a cancelled method waiting for its timeout.
        _answer_error(call, Unavailable("the service is stopping"), replies)
        raise
    except Exception as error:  # noqa: BLE001  any fault of ours must still be answered
        _answer_error(call, error, replies)


def _answer(call: Message, route: Route, outputs: Sequence[object], replies: Replies) -> None:
    body = route.method.output_body(outputs)
    if not call.flags & MessageFlag.NO_REPLY_EXPECTED:
        replies.send(Message.new_method_return(call, route.method.output_signature, body))


def _answer_error(call: Message, error: Exception, replies: Replies) -> None:
    """Reply with ``error``; a fault that is no BusError is told to the journal, not the caller."""
    if isinstance(error, BusError):
        answer = error
    else:
        logger.error("%s.%s failed", call.interface, call.member, exc_info=error)
        answer = Failed("internal error; the journal of the service says more")
    if not call.flags & MessageFlag.NO_REPLY_EXPECTED:
        replies.send(Message.new_error(call, answer.name, answer.text))
