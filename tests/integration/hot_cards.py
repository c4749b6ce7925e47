# SPDX-License-Identifier: Apache-2.0
"""Two simulated cards of which one is made hot or broken, and their thermal guards."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpuwarden.control.snapshot import read_snapshot
from gpuwarden.control.states import PlanData, ThermalData
from gpuwarden.values import ThermalState
from tests.integration.journal_peer import JournalPeer, journal_at
from tests.integration.simulated_cards import SimulatedNode
from tests.waiting import wait_until

ORIGINAL_WATTS, ALERT_WATTS, LEAST_WATTS = 700, 490, 200  # the simulated H200, and 70 % of it
ALERT_LOCK_MHZ = [345, 1575]  # the step at or below 80 % of 1980 MHz
# The H200 idles at 42 C and follows a load step to 58 C within a second: alert lies between.
WARM_LOAD = 0.5
STEPPED = """\
[thermal]
policy = "stepped"
alert_celsius = 55
safe_celsius = 50
safe_seconds = 1
"""
REGULATED = STEPPED.replace("stepped", "regulated")


class Cards(SimulatedNode):
    """Card 0 is made hot or broken, card 1 is its neighbour."""

    journal: JournalPeer

    def load(self, fraction: float) -> None:
        self.ask(command="load", gpu=0, fraction=fraction)

    def hurt(self, kind: str, value: float | None = None) -> None:
        self.ask(command="fault", gpu=0, kind=kind, value=value)

    def mend(self) -> None:
        """No fault, no load, good air."""
        self.ask(command="clear", gpu=0)

    def card(self) -> dict[str, Any]:
        """What the simulator says about card 0."""
        cards: list[dict[str, Any]] = self.ask(command="show")["cards"]
        return cards[0]

    @property
    def limit_watts(self) -> float:
        watts: float = self.card()["power_limit_watts"]
        return watts

    @property
    def sm_lock_mhz(self) -> list[int] | None:
        lock: list[int] | None = self.card()["sm_lock_mhz"]
        return lock

    def wait_for_limit(self, watts: float) -> None:
        wait_until(lambda: self.limit_watts == watts)

    def reaches(self, state: ThermalState, gpu_index: int = 0) -> ThermalData:
        """What is published once the card is in that state."""
        return self.thermal(gpu_index, lambda data: data.state is state)

    def sequence(self, gpu_index: int) -> int:
        return read_snapshot(self.root / f"thermal-{gpu_index}.json", ThermalData).sequence

    def record(self) -> dict[str, Any] | None:
        """The originals of card 0 as they are on disk."""
        plan = read_snapshot(self.root / "plan.json", PlanData).data
        file = self.root / "var" / f"{plan.cards[0].uuid}.json"
        with contextlib.suppress(FileNotFoundError):
            document: dict[str, Any] = json.loads(file.read_text())
            return document
        return None

    @property
    def uuid(self) -> str:
        uuid: str = self.card()["uuid"]
        return uuid

    def becomes_hot(self) -> None:
        """The load rises until card 0 is held as at alert, limit and clock."""
        self.reaches(ThermalState.NORMAL)
        self.load(WARM_LOAD)
        self.wait_for_limit(ALERT_WATTS)
        wait_until(lambda: self.sm_lock_mhz == ALERT_LOCK_MHZ)


@contextlib.contextmanager
def hot_cards(folder: Path, library: Path) -> Iterator[Cards]:
    """The cards at work, planned, with a journal."""
    made = Cards(folder, library)
    made.configure(STEPPED)
    with made.powered(), journal_at(folder / "journal") as made.journal:
        made.place()
        yield made
        made.mend()  # nobody waits for a driver that hangs


@contextlib.contextmanager
def undisturbed_neighbour(cards: Cards) -> Iterator[None]:
    """Card 1 is guarded by the same process all the while, and stays normal."""
    with cards.guarded(1):
        before = cards.reaches(ThermalState.NORMAL, 1)
        yield
        sequence = cards.sequence(1)
        wait_until(lambda: cards.sequence(1) >= sequence + 2)
        after = cards.thermal(1, lambda data: True)
        assert (after.state, after.since, after.reason) == (ThermalState.NORMAL, before.since, "")
        assert cards.journal.changes(1) == ["normal"]
