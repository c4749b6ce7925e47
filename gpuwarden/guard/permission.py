# SPDX-License-Identifier: Apache-2.0
"""Who may change something: polkit decides, root may without it, and the journal names each."""

import asyncio
import logging
from dataclasses import replace

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.caller import Caller, Change
from gpuwarden.bus.errors import AccessDenied
from gpuwarden.bus.identity import Identity, identify
from gpuwarden.bus.polkit import Answer, Polkit, PolkitSilentError
from gpuwarden.guard.denials import Denials, Telling
from gpuwarden.systemd.events import Event, tell
from gpuwarden.text import one_line

ROOT_UID = 0
# Waiting for polkit or for a password at the same time, root not counted: far from the 64 calls
# that may be under way in all, so that operators in a loop can't keep root out.
QUESTIONS_AT_ONCE = 16
ARGUMENTS_SHOWN_CHARACTERS = 100  # not checked yet: a caller may have sent a book


class Permission:
    """Asked before each method that changes something."""

    def __init__(
        self, bus: Bus, polkit: Polkit | None = None, denials: Denials | None = None
    ) -> None:
        self._bus = bus
        self._polkit = polkit or Polkit(bus)
        self._questions = 0
        self._denials = denials or Denials()

    async def authorize(self, caller: Caller, change: Change) -> None:
        """Return if ``caller`` may do ``change``.

        :raises AccessDenied: it may not, or nobody can say; nothing was done.
        """
        try:
            identity = await identify(self._bus, caller.sender)
        except AccessDenied as refusal:
            self._tell_denied(change, caller.sender, str(refusal))
            raise
        refusal_text, note = await self._refusal(caller, identity, change.action)
        if refusal_text:
            self._tell_denied(change, identity, refusal_text)
            raise AccessDenied(refusal_text)
        _tell(Event.CHANGE_GRANTED, change, identity, note)

    def _tell_denied(self, change: Change, who: Identity | str, why: str) -> None:
        loop = asyncio.get_running_loop()
        user = f"uid {who.uid}" if isinstance(who, Identity) else "callers who had left"
        telling = self._denials.note(user, loop.time())
        if telling is Telling.SINGLY:
            _tell(Event.CHANGE_DENIED, change, who, why)
        elif telling is Telling.FIRST_COUNTED:
            loop.call_at(self._denials.ends_seconds(user), self._tell_counted, user)

    def _tell_counted(self, user: str) -> None:
        count = self._denials.end(user)
        tell(
            Event.CHANGES_DENIED,
            f"{count} more calls of {user} were denied within {self._denials.window_seconds:.0f} s",
            logging.WARNING,
            COUNT=count,
            CALLER=user,
        )

    async def _refusal(self, caller: Caller, identity: Identity, action: str) -> tuple[str, str]:
        """Why not (empty if it may), and what is to be noted if it may."""
        if identity.uid == ROOT_UID:
            return await self._refusal_to_root(caller, action)
        if self._questions >= QUESTIONS_AT_ONCE:
            return f"{self._questions} callers are waiting for polkit already; try again", ""
        self._questions += 1
        try:
            answer = await self._polkit.check(caller, action)
        except PolkitSilentError as silence:
            return f"only root may now: {silence}", ""
        finally:
            self._questions -= 1
        return _refusal_of(answer, action), ""

    async def _refusal_to_root(self, caller: Caller, action: str) -> tuple[str, str]:
        # Root is never asked for a password, so a polkit that hangs must not hold root up long.
        caller = replace(caller, interactive=False)
        try:
            return _refusal_of(await self._polkit.check(caller, action), action), ""
        except PolkitSilentError as silence:
            return "", str(silence)  # what polkit would protect from others is root's own


def _refusal_of(answer: Answer, action: str) -> str:
    if answer.allowed:
        return ""
    if answer.by_password:
        return f"{action} needs an administrator's password"
    return f"polkit does not grant {action}"


def _tell(event: Event, change: Change, who: Identity | str, why: str) -> None:
    granted = event is Event.CHANGE_GRANTED
    shown = ", ".join(str(argument) for argument in change.arguments)
    call = one_line(f"{change.method}({shown[:ARGUMENTS_SHOWN_CHARACTERS]})")
    fields: dict[str, object] = {"ACTION": change.action, "METHOD": call, "OBJECT": change.path}
    if isinstance(who, Identity):
        fields |= {"CALLER_UID": who.uid, "CALLER_PID": who.pid, "CALLER_UNIT": who.unit}
    if "/gpu/" in change.path:
        fields["GPU"] = change.path.rpartition("/")[2]
    tell(
        event,
        f"{call} on {change.path} {'granted to' if granted else 'denied to'} {who}"
        + (f": {why}" if why else ""),
        logging.INFO if granted else logging.WARNING,
        REASON=why,
        **fields,
    )
