# SPDX-License-Identifier: Apache-2.0
"""polkit: whether a caller holds an action. Asked over the bus, never waited for without end."""

import itertools
import logging
from dataclasses import dataclass

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.caller import Caller
from gpuwarden.bus.errors import BusError, CallTimeout
from gpuwarden.bus.library import Variant

logger = logging.getLogger(__name__)

NAME = "org.freedesktop.PolicyKit1"
PATH = "/org/freedesktop/PolicyKit1/Authority"
INTERFACE = f"{NAME}.Authority"

# polkit answers from its rules within milliseconds; the first question may have to start it, and a
# machine may be busy. Below the 25 s that a caller waits by D-Bus's habit: it is to hear why not.
ANSWER_SECONDS = 20.0
# With somebody to type a password. The caller's own patience ends at 25 s by D-Bus's habit, but
# a caller that expects a question may set more.
PASSWORD_SECONDS = 60.0

ALLOW_USER_INTERACTION = 1  # CheckAuthorizationFlags of polkit's D-Bus reference


class PolkitSilentError(Exception):
    """polkit gave no answer: not installed, not in time, or it doesn't know the action."""


@dataclass(frozen=True, slots=True)
class Answer:
    """polkit's answer.

    :ivar by_password: refused as it stands, but an administrator's password would do.
    """

    allowed: bool
    by_password: bool = False


class Polkit:
    """The authority on ``bus``."""

    def __init__(
        self,
        bus: Bus,
        answer_seconds: float = ANSWER_SECONDS,
        password_seconds: float = PASSWORD_SECONDS,
    ) -> None:
        self._bus = bus
        self._answer_seconds = answer_seconds
        self._password_seconds = password_seconds
        self._questions = itertools.count(1)

    async def check(self, caller: Caller, action: str) -> Answer:
        """Whether ``caller`` holds ``action``; where the caller allows, somebody is asked.

        The subject is the caller's bus name, not its process: a number can be another's by the time
        it is looked up.

        :raises PolkitSilentError: no answer.
        """
        question = f"gpuwarden-{next(self._questions)}"
        flags = ALLOW_USER_INTERACTION if caller.interactive else 0
        subject = ["system-bus-name", {"name": Variant("s", caller.sender)}]
        try:
            ((allowed, challenge, _),) = await self._bus.call(
                NAME,
                PATH,
                INTERFACE,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                [subject, action, {}, flags, question],
                self._password_seconds if caller.interactive else self._answer_seconds,
            )
        except CallTimeout as error:
            if caller.interactive:
                await self._withdraw(question)
            raise PolkitSilentError(f"polkit: {error}") from error
        except (BusError, ValueError, TypeError) as error:
            raise PolkitSilentError(f"polkit: {error}") from error
        return Answer(allowed is True, challenge is True)

    async def _withdraw(self, question: str) -> None:
        """Take a question back, so that no password is asked for what was refused already."""
        try:
            await self._bus.call(
                NAME,
                PATH,
                INTERFACE,
                "CancelCheckAuthorization",
                "s",
                [question],
                self._answer_seconds,
            )
        except BusError as error:
            logger.info("polkit did not take its question back: %s", error)
