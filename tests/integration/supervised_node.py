# SPDX-License-Identifier: Apache-2.0
"""A node of two cards with a worker each, a real gateway, and a supervisor over it, for tests."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.bus.bus import Bus
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import GuardData, PlanData, PlannedWorker, ThermalData, Xid
from gpuwarden.guard import placement
from gpuwarden.guard.supervisor import Supervisor
from gpuwarden.names import worker_unit
from gpuwarden.systemd.units import Systemd
from gpuwarden.values import ThermalState
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.private_bus import PrivateBus, private_bus
from tests.integration.systemd_peer import POLICY, SystemdPeer, systemd_at
from tests.machines import card as planned_card

DEADLINE_SECONDS = 30.0
LASTING_MILLISECONDS = 600_000
DIGEST = "as accepted"


class SupervisedNode:
    """What a test does to the node, and sees of it.

    :ivar bus_daemon: where the test may stop it.
    """

    bus_daemon: PrivateBus

    def __init__(self, systemd: SystemdPeer, bus: Bus, gateway: GatewayNode) -> None:
        self.systemd = systemd
        self.gateway = gateway
        self._bus = bus
        self._turning: asyncio.Task[None] | None = None
        self.published: list[GuardData] = []
        self.supervisor = self._new_supervisor(None)

    def _new_supervisor(self, former: GuardData | None) -> Supervisor:
        return Supervisor(Systemd(self._bus), self.published.append, former)

    @property
    def data(self) -> GuardData:
        return self.published[-1]

    def say(
        self,
        gpu_index: int,
        state: ThermalState = ThermalState.NORMAL,
        *,
        xids: tuple[Xid, ...] = (),
        recovery_action: str = "none",
        vram_used_bytes: int = 0,
    ) -> None:
        """What the thermal guard of a card says from now on."""
        data = ThermalData(
            index=gpu_index,
            uuid=f"GPU-0000000{gpu_index}",
            name="NVIDIA H200",
            pci_address="",
            numa_node=0,
            temperature_celsius=60.0,
            vram_used_bytes=vram_used_bytes,
            recovery_action=recovery_action,
            state=state,
            since=1,
            xids=list(xids),
        )
        path = names.thermal_snapshot_file(gpu_index)
        SnapshotWriter(path, f"thermal@{gpu_index}", LASTING_MILLISECONDS).publish(data)

    async def open_up(self) -> None:
        await self.supervisor.begin()
        self.supervisor.open_up(DIGEST)
        self._turning = asyncio.create_task(self._turn(), name="turning")

    async def restart_guard(self) -> None:
        """A new guard after one that died at this very moment."""
        await self.close()
        self.supervisor = self._new_supervisor(self.data)
        await self.open_up()

    async def close(self) -> None:
        """Let the guard die, and whatever it is about with it."""
        here = asyncio.current_task()
        ours = [
            task
            for task in asyncio.all_tasks()
            if task is not here and (task.get_name() == "turning" or " worker" in task.get_name())
        ]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)

    async def until(self, wanted: Callable[[GuardData], bool]) -> GuardData:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (self.published and wanted(self.data)):
                await self.supervisor.next_look()
        return self.data

    async def _turn(self) -> None:
        while True:
            await self.supervisor.turn()

    def asked_of(self, number: int) -> list[str]:
        return [
            each.split()[0] for each in self.systemd.asked if each.endswith(worker_unit(number))
        ]


def plan() -> PlanData:
    return PlanData(
        driver_version="1",
        simulated=True,
        cards=[planned_card(0), planned_card(1)],
        workers=[
            PlannedWorker(
                number=number,
                gpu_index=number,
                gpu_uuid=f"GPU-0000000{number}",
                numa_node=0,
                cpus="1",
                memory_max_bytes=1,
            )
            for number in (0, 1)
        ],
        housekeeping_cpus="0",
        configuration_digest=DIGEST,
    )


@asynccontextmanager
async def supervised_node(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SupervisedNode]:
    async with (
        private_bus([POLICY]) as bus,
        supervised_at(bus.address, folder, monkeypatch) as node,
    ):
        node.bus_daemon = bus
        yield node


@asynccontextmanager
async def supervised_at(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SupervisedNode]:
    """The node, on the bus of that address."""
    monkeypatch.setattr(placement, "PLAN_FILE", folder / "plan.json")
    monkeypatch.setattr(names, "GATEWAY_CONTROL_SOCKET", folder / "gateway.sock")
    monkeypatch.setattr(names, "thermal_snapshot_file", lambda index: folder / f"{index}.json")
    monkeypatch.setattr(names, "scan_snapshot_file", lambda index: folder / f"scan-{index}.json")
    SnapshotWriter(folder / "plan.json", "placement", LASTING_MILLISECONDS).publish(plan())
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.bind(str(folder / "gateway.sock"))
    control.listen()
    async with (
        systemd_at(address) as peer,
        gateway_node(control=[control]) as gateway,
    ):
        monkeypatch.setattr(names, "GATEWAY_STATE_FILE", gateway.state_path)
        peer.add(names.SHUTDOWN_UNIT, names.GATEWAY_SOCKET_UNIT)
        peer.add(names.THERMAL_TARGET, names.SCAN_TARGET)
        peer.add(names.NUMA_UNIT, worker_unit(0), worker_unit(1))
        connection = Bus(address)
        await connection.connect()
        node = SupervisedNode(peer, connection, gateway)
        node.say(0)
        node.say(1)
        try:
            yield node
        finally:
            await node.close()
            await connection.close()
