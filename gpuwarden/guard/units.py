"""The units that the guard follows: what systemd says of each, asked again when it has changed."""

from collections.abc import Callable
from typing import Any

from gpuwarden.bus.errors import BusError
from gpuwarden.guard.facts import unit_facts
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.systemd.units import Systemd, UnitProperties

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

    def __getitem__(self, unit: str) -> UnitFacts:
        """What is known of a unit; of one that isn't followed, that it is down."""
        return self._facts.get(unit, UnitFacts())

    async def follow(self, unit: str) -> None:
        """Follow a unit, and ask for it at the next look. Raises BusError."""
        if unit not in self._facts:
            await self._systemd.watch(unit, self._changed)
            self._facts[unit] = UnitFacts()
        self._stale.add(unit)

    async def refresh(self) -> None:
        """Ask for all that has changed. Raises BusError; the rest is asked for the next time."""
        for unit in sorted(self._stale):
            self._stale.discard(unit)  # before the question: a change during it counts
            try:
                self._facts[unit] = unit_facts(await self._systemd.properties(unit))
            except BusError:
                self._stale.add(unit)
                raise

    def all_changed(self) -> None:
        """Signals may have been missed."""
        self._stale.update(self._facts)
        self._wake()

    def _changed(self, unit: str, properties: dict[str, Any]) -> None:
        if "ExecMainCode" in properties:
            self._heard(unit, unit_facts(UnitProperties({}, properties)))
        self._stale.add(unit)
        self._wake()
