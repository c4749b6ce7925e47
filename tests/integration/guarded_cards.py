# SPDX-License-Identifier: Apache-2.0
"""A guarded card of the simulator, in this process: its clock and its files in the test's hand."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import Card, PlanData
from gpuwarden.nvml.library import Library
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.card import GuardedCard
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.observation import NotSeen, Observation, Seen
from gpuwarden.thermal.originals_store import Places
from tests.integration.simulation import Node

ORIGINAL_WATTS, LEAST_WATTS = 700.0, 200.0  # the simulator's H200
SM_RANGE_MHZ = (345, 1980)
MEMORY_CLOCK_MHZ = 2201
STEP_SECONDS = 1.0


class Bench:
    """One card of a simulated node and whoever guards it."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.places = Places(folder / "disk", folder / "run")
        self.now = 1000.0
        self.told: list[Happening] = []
        self.uuid = str(self.shown()["uuid"])
        plan = PlanData(
            driver_version="580",
            simulated=True,
            cards=[
                Card(
                    index=0,
                    uuid=self.uuid,
                    name="NVIDIA H200",
                    pci_address="0000:41:00.0",
                    minor=0,
                    numa_node=0,
                    present=True,
                )
            ],
            workers=[],
            housekeeping_cpus="0",
        )
        SnapshotWriter(folder / "plan.json", "placement").publish(plan)

    @property
    def file(self) -> Path:
        return self.places.disk / f"{self.uuid}.json"

    @property
    def run_file(self) -> Path:
        return self.places.run / f"{self.uuid}.originals.json"

    def guard(self, options: Options | None = None) -> GuardedCard:
        """A new life of the guard, at its first look: the one before may have been killed."""
        card = GuardedCard(
            0,
            self.folder / "plan.json",
            Library(str(self.node.library), simulated=True),
            options=options,
            places=self.places,
            clock=lambda: self.now,
        )
        self.look(card)
        return card

    def look(self, card: GuardedCard, after_seconds: float = STEP_SECONDS) -> Observation:
        self.now += after_seconds
        observation = card.look()
        self.told += card.happenings()
        return observation

    def seen(self, card: GuardedCard) -> Seen:
        observation = self.look(card)
        assert isinstance(observation, Seen), observation
        return observation

    def not_seen(self, card: GuardedCard) -> NotSeen:
        observation = self.look(card)
        assert isinstance(observation, NotSeen), observation
        return observation

    def shown(self) -> dict[str, object]:
        """What the simulator says about the card."""
        return self.node.do("show")[0]

    @property
    def limit_watts(self) -> object:
        return self.shown()["power_limit_watts"]

    @property
    def sm_lock_mhz(self) -> object:
        return self.shown()["sm_lock_mhz"]

    @property
    def memory_lock_mhz(self) -> object:
        return self.shown()["memory_lock_mhz"]

    def hurt(self, *fault: str) -> None:
        self.node.do("fault", "--gpu", "0", *fault)

    def of(self, event: Event) -> list[str]:
        """What was told of a kind."""
        return [each.message for each in self.told if each.event is event]

    def take(self, happenings: tuple[Happening, ...]) -> list[Event]:
        self.told += happenings
        return [each.event for each in happenings]


@contextlib.contextmanager
def bench_on(node: Node, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench; the driver library of this process is let go of at the end."""
    monkeypatch.setenv("GPUWARDEN_SIM_STATE", str(node.state))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    yield Bench(node, folder)
    with contextlib.suppress(pynvml.NVMLError):
        while True:  # a guard that was killed has closed nothing
            pynvml.nvmlShutdown()
