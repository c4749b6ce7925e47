# SPDX-License-Identifier: Apache-2.0
"""Starts hooks as units of their own when a card enters a state: the guard runs none itself."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from gpuwarden.bus.errors import BusError
from gpuwarden.config import accepted_configuration
from gpuwarden.config.thermal import HookSettings
from gpuwarden.control.states import GuardData, ThermalData
from gpuwarden.guard.facts import unit_facts
from gpuwarden.guard.hooks import TOLD_EXIT_STATUS, entered, hook_name, hooks_on, states_now
from gpuwarden.guard.lifecycle import last_error
from gpuwarden.names import hook_unit
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError, Systemd
from gpuwarden.values import ThermalState

log = logging.getLogger(__name__)

JOB_TIMEOUT_SECONDS = 90.0  # longer than TimeoutStartSec=75 of the unit


def accepted_hooks() -> Sequence[HookSettings]:
    """The hooks in force."""
    configuration = accepted_configuration()
    return configuration.thermal.hooks if configuration else ()


class HookStarter:
    """Follows the cards' states and has systemd run what is to be run.

    Hooks of one state run beside each other. Those of the next wait for them, so that what a
    program hears last is the card's last state; states that came and went meanwhile are skipped.

    :param former: what a guard before this one had published: its states are no news.
    """

    def __init__(
        self,
        systemd: Systemd,
        former: GuardData | None = None,
        hooks: Callable[[], Sequence[HookSettings]] = accepted_hooks,
    ) -> None:
        self._systemd = systemd
        self._hooks = hooks
        self._states = {card.index: card.state for card in former.gpus} if former else {}
        self._due: dict[int, ThermalState] = {}
        self._running: dict[int, asyncio.Task[None]] = {}

    def follow(self, cards: Sequence[ThermalData]) -> None:
        """Take note of the cards' states. Returns at once; never raises for what a hook does."""
        # A card of which its guard says nothing has no moment since when.
        fresh = {card.index: card.state for card in cards if card.since}
        before, self._states = self._states, states_now(self._states, fresh)
        for gpu, state in entered(before, self._states).items():
            self._due[gpu] = state
            if gpu not in self._running:
                task = asyncio.create_task(self._run(gpu), name=f"hooks of GPU {gpu}")
                self._running[gpu] = task
                task.add_done_callback(_say_fault)

    async def _run(self, gpu: int) -> None:
        try:
            while gpu in self._due:
                numbers = hooks_on(self._due.pop(gpu), self._hooks())
                await asyncio.gather(*(self._start(number, gpu) for number in numbers))
        finally:
            del self._running[gpu]

    async def _start(self, number: int, gpu: int) -> None:
        unit = hook_unit(number, gpu)
        try:
            await self._systemd.start(unit, JOB_TIMEOUT_SECONDS)
            return
        except BusError as error:
            why = str(error)
        except JobError as error:
            why = await self._untold(unit, error)
        if why:
            message = f"{hook_name(number)} for GPU {gpu} failed: {why}"
            tell(Event.HOOK_FAILED, message, logging.ERROR, GPU=gpu, REASON=why)

    async def _untold(self, unit: str, error: JobError) -> str:
        """Why the hook failed; empty where it has said so itself. One that was killed couldn't."""
        try:
            facts = unit_facts(await self._systemd.properties(unit))
        except BusError:
            return str(error)
        if facts.result == "exit-code" and facts.exit_status == TOLD_EXIT_STATUS:
            return ""
        return last_error(facts) or str(error)


def _say_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s: %r", task.get_name(), error)
