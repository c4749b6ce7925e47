# SPDX-License-Identifier: Apache-2.0
"""Owning the well-known name: asked for, kept, and asked for again when it is lost."""

import asyncio
import logging
from enum import IntEnum

from gpuwarden.bus.errors import AccessDenied, BusError, Disconnected, NameTaken
from gpuwarden.bus.signals import DAEMON, DaemonCall, Signal, Subscription

logger = logging.getLogger(__name__)

# A fresh install: the bus daemon has seen our policy file a moment after the service starts, and
# refuses the name until then.
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0

_DO_NOT_QUEUE = 4


class _Reply(IntEnum):
    PRIMARY_OWNER = 1
    IN_QUEUE = 2
    EXISTS = 3
    ALREADY_OWNER = 4


class NameClaim:
    """Holds one bus name across connections.

    Never queues for it: a service that believes to own a name while another answers to it is
    worse than one that says that the name is taken.
    """

    def __init__(self, name: str, call_daemon: DaemonCall) -> None:
        self.name = name
        self.owned = asyncio.Event()
        self.problem: BusError | None = None
        self._call_daemon = call_daemon
        self._lost = asyncio.Event()

    def subscription(self) -> Subscription:
        """What notices the loss; the daemon sends it to us unasked, no match rule is needed."""
        return Subscription(DAEMON, None, DAEMON, "NameLost", self._on_name_lost)

    async def keep(self) -> None:
        """Own the name until cancelled or the connection is gone."""
        try:
            while True:
                self._lost.clear()
                await self._claim()
                self.problem = None
                self.owned.set()
                await self._lost.wait()
                self.owned.clear()
                logger.error("the bus name %s was taken from us; claiming it again", self.name)
        except Disconnected as error:
            self.problem = error
        finally:
            self.owned.clear()

    async def _claim(self) -> None:
        delay_seconds = FIRST_RETRY_SECONDS
        while True:
            problem = await self._request()
            if problem is None:
                return
            if str(problem) != str(self.problem):
                logger.warning("%s; trying again", problem)
            self.problem = problem
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, LAST_RETRY_SECONDS)

    async def _request(self) -> BusError | None:
        """Ask once; None when it is ours, else why not. Raises Disconnected."""
        try:
            (reply,) = await self._call_daemon("RequestName", "su", [self.name, _DO_NOT_QUEUE])
        except Disconnected:
            raise
        except AccessDenied as error:
            return AccessDenied(
                f"the bus policy does not let us own {self.name} ({error}); is "
                f"/usr/share/dbus-1/system.d/{self.name}.conf there?"
            )
        except BusError as error:
            return error
        if reply in (_Reply.PRIMARY_OWNER, _Reply.ALREADY_OWNER):
            return None
        return NameTaken(f"another process owns the bus name {self.name}")

    def _on_name_lost(self, signal: Signal) -> None:
        if signal.body == [self.name]:
            self._lost.set()
