# SPDX-License-Identifier: Apache-2.0
"""tuned over D-Bus. Its answers come before the change is made, so its signal is waited for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError, ServiceUnknown
from gpuwarden.bus.signals import DAEMON, DAEMON_PATH, Signal
from gpuwarden.names import TUNED_BUS_NAME, TUNED_INTERFACE, TUNED_OBJECT, TUNED_PROFILE_CHANGED

ANSWER_SECONDS = 25.0
# It takes back the former profile before it sets the next; measured: 0.8 s idle, 10 s emulated.
SWITCH_SECONDS = 90.0
VERIFY_SECONDS = 60.0


class TunedError(Exception):
    """tuned refused, failed or did not answer; the text says what was asked and why not."""


class NoTunedError(TunedError):
    """There is no tuned on the bus."""


class Verdict(Enum):
    """What tuned finds when it compares the machine with the profile in force."""

    GOOD = "everything is as the profile has it"
    PARTLY = "what this machine has is as the profile has it, the rest it doesn't have"
    DIFFERS = "something is not as the profile has it"


@dataclass(frozen=True, slots=True)
class InForce:
    """The profile in force, several by spaces, empty for none; and whether somebody chose it."""

    profile: str
    manual: bool


class Tuned:
    """The running tuned. Everything raises TunedError."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def in_force(self) -> InForce:
        """The profile in force now."""
        profile = await self._ask("active_profile")
        mode, _ = await self._ask("profile_mode")
        return InForce(str(profile), mode != "auto")

    async def switch(self, profile: str) -> None:
        """Have a profile set, by choice; returns when it is."""
        async with self._change(profile) as done:
            await self._switch("switch_profile", profile)
            await done()

    async def switch_to_recommended(self) -> None:
        """Have tuned choose for this machine, as where nobody has; returns when it is set."""
        profile = str(await self._ask("recommend_profile"))
        async with self._change(profile) as done:
            await self._switch("auto_profile")
            await done()

    async def switch_off(self) -> None:
        """No profile at all, like ``tuned-adm off``: what was set is taken back."""
        if not await self._ask("disable", timeout_seconds=SWITCH_SECONDS):
            raise TunedError("tuned did not take its profile back (disable answered false)")

    async def take_back(self) -> None:
        """Undo all settings, but remember the profile for tuned's next start."""
        if not await self._ask("stop", timeout_seconds=SWITCH_SECONDS):
            raise TunedError("tuned did not take its settings back (stop answered false)")

    async def verify(self) -> Verdict:
        """Have tuned read the machine again and compare, like ``tuned-adm verify``."""
        if await self._ask("verify_profile", timeout_seconds=VERIFY_SECONDS):
            return Verdict.GOOD
        if await self._ask("verify_profile_ignore_missing", timeout_seconds=VERIFY_SECONDS):
            return Verdict.PARTLY
        return Verdict.DIFFERS

    async def _switch(self, member: str, *profile: str) -> None:
        accepted, why = await self._ask(member, "s" * len(profile), [*profile], SWITCH_SECONDS)
        if not accepted:
            raise TunedError(f"tuned refuses: {why}")
        # A tuned that has been switched off only takes note of the profile.
        if not await self._ask("start", timeout_seconds=SWITCH_SECONDS):
            raise TunedError("tuned did not begin to tune (start answered false)")

    @asynccontextmanager
    async def _change(self, profile: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Listen for the change to ``profile`` before it is asked for."""
        change = _Change(profile)
        try:
            changed = await self._bus.subscribe(
                TUNED_BUS_NAME, TUNED_OBJECT, TUNED_INTERFACE, TUNED_PROFILE_CHANGED, change.hear
            )
            gone = await self._bus.subscribe(
                DAEMON, DAEMON_PATH, DAEMON, "NameOwnerChanged", change.hear_of_names
            )
        except BusError as error:
            raise TunedError(f"tuned can't be listened to: {error}") from error
        try:
            yield change.done
        finally:
            for subscription in (changed, gone):
                with suppress(BusError):  # the bus is away, and with it what was subscribed to
                    await self._bus.unsubscribe(subscription)

    async def _ask(
        self,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> Any:
        try:
            (answer,) = await self._bus.call(
                TUNED_BUS_NAME,
                TUNED_OBJECT,
                TUNED_INTERFACE,
                member,
                signature,
                body,
                timeout_seconds,
            )
        except ServiceUnknown as error:
            raise NoTunedError("tuned is not on the bus (systemctl status tuned)") from error
        except (BusError, ValueError) as error:
            raise TunedError(f"tuned does not answer {member}: {error}") from error
        return answer


class _Change:
    """A change of profile that is waited for."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._why: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(self, signal: Signal) -> None:
        """profile_changed: the profiles, whether it worked, and why not."""
        profiles, worked, why = signal.body
        # After a failure the former profile is set again, and that is told, too.
        if profiles == self._profile:
            self._end("" if worked else str(why) or "no reason given")

    def hear_of_names(self, signal: Signal) -> None:
        """NameOwnerChanged: the name, its former and its new owner."""
        name, _, owner = signal.body
        if name == TUNED_BUS_NAME and not owner:
            self._end("it ended meanwhile (systemctl status tuned)")

    def _end(self, why: str) -> None:
        if not self._why.done():
            self._why.set_result(why)

    async def done(self) -> None:
        """Returns when the profile is set. Raises TunedError."""
        try:
            async with asyncio.timeout(SWITCH_SECONDS):
                why = await self._why
        except TimeoutError:
            raise TunedError(
                f"tuned took the order to set {self._profile}, but did not in "
                f"{SWITCH_SECONDS:.0f} s"
            ) from None
        if why:
            raise TunedError(f"tuned could not set {self._profile}: {why}")
