# SPDX-License-Identifier: Apache-2.0
"""The units that the guard follows: what systemd says of each, asked again when it has changed."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from gpuwarden.bus.errors import BusError
from gpuwarden.guard.facts import unit_facts
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.systemd.units import Systemd, UnitProperties

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.5  # of a turn, which publishes each second: three is when a state is stale
SILENT_SECONDS = 10.0  # no reload of systemd's units takes so long

Heard = Callable[[str, UnitFacts], None]


class Units:
    """Facts by unit.

    :param wake: called when something has changed.
    :param heard: called with what systemd tells of itself, before it is asked: that may be over
        by then.
    """

    def __init__(self, systemd: Systemd, wake: Callable[[], None], heard: Heard) -> None:
        self._systemd = systemd
        self._wake = wake
        self._heard = heard
        self._facts: dict[str, UnitFacts] = {}
        self._stale: set[str] = set()
        self._asking: asyncio.Task[None] | None = None
        self._silent_since: float | None = None
        self._problem = ""

    def __getitem__(self, unit: str) -> UnitFacts:
        """What is known of a unit; of one that isn't followed, that it is down."""
        return self._facts.get(unit, UnitFacts())

    async def follow(self, unit: str) -> None:
        """Follow a unit, and ask for it at the next look. Raises BusError."""
        if unit not in self._facts:
            await self._systemd.watch(unit, self._changed)
            self._facts[unit] = UnitFacts()
        self._stale.add(unit)

    async def refresh(self) -> bool:
        """Ask for all that has changed; False where not all of it is known yet.

        While systemd reads its own units again it answers nobody, nor while the bus is away. What
        is known has to be published all the same: so this waits for a moment only, the rest comes
        beside the loop, or is asked for at a later look.
        """
        if self._asking is None:
            if not self._stale:
                return True
            self._asking = asyncio.create_task(self.ask(), name="ask systemd")
        done, _ = await asyncio.wait({self._asking}, timeout=PATIENCE_SECONDS)
        if not done:
            self._note_silence("")
            self._asking.add_done_callback(self._on_late_answer)
            return False
        asked, self._asking = self._asking, None
        try:
            asked.result()
        except BusError as error:
            self._note_silence(f": {error}")
            return False
        self._silent_since, self._problem = None, ""
        return True

    async def ask(self) -> None:
        """Ask until nothing has changed any more. Raises BusError; the rest stays to be asked."""
        while self._stale:
            unit = min(self._stale)
            self._stale.discard(unit)  # before the question: a change during it counts
            try:
                self._facts[unit] = unit_facts(await self._systemd.properties(unit))
            except BaseException:
                self._stale.add(unit)
                raise

    @property
    def fault(self) -> str:
        """Why what is known may be old, where it may for long; empty otherwise."""
        if self._silent_since is None or time.monotonic() < self._silent_since + SILENT_SECONDS:
            return ""
        return f"systemd says nothing, so what is known of the workers may be old{self._problem}"

    def _note_silence(self, problem: str) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        if problem and problem != self._problem:
            log.warning("systemd can't be asked%s", problem)
        self._problem = problem or self._problem

    def _on_late_answer(self, asked: asyncio.Task[None]) -> None:
        # Not after a failure: that would be asked again at once, and again.
        if not asked.cancelled() and asked.exception() is None:
            self._wake()

    def all_changed(self) -> None:
        """Signals may have been missed."""
        self._stale.update(self._facts)
        self._wake()

    def _changed(self, unit: str, properties: dict[str, Any]) -> None:
        if "ExecMainCode" in properties:
            self._heard(unit, unit_facts(UnitProperties({}, properties)))
        self._stale.add(unit)
        self._wake()
