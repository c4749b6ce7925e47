# SPDX-License-Identifier: Apache-2.0
# A card that stays too hot, or that somebody released: what the supervisor does with its workers.

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.bus.bus import Bus
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import GuardData, ThermalData
from gpuwarden.guard import heat, placement
from gpuwarden.guard.supervisor import Supervisor
from gpuwarden.names import worker_unit
from gpuwarden.systemd.units import Systemd
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.integration.bus_states import gateway
from tests.integration.private_bus import private_bus
from tests.integration.supervised_node import DIGEST, plan
from tests.integration.systemd_peer import POLICY, SystemdPeer, systemd

DEADLINE_SECONDS = 30.0
LASTING_MILLISECONDS = 600_000


class Node:
    """A node of two cards with a worker each, and the supervisor over it."""

    def __init__(self, folder: Path, systemd: SystemdPeer, bus: Bus) -> None:
        self.folder = folder
        self.systemd = systemd
        self._bus = bus
        self.published: list[GuardData] = []
        self.supervisor = self.new_supervisor()

    def new_supervisor(self) -> Supervisor:
        former = self.published[-1] if self.published else None
        self.supervisor = Supervisor(Systemd(self._bus), self.published.append, former)
        return self.supervisor

    def say(self, gpu_index: int, state: ThermalState, *, stop: bool = False) -> None:
        """What the thermal guard of a card says from now on."""
        data = ThermalData(
            index=gpu_index,
            uuid=f"GPU-0000000{gpu_index}",
            name="NVIDIA H200",
            pci_address="",
            numa_node=0,
            temperature_celsius=91.0 if stop else 60.0,
            state=state,
            since=1,
            reason="3 C below its shutdown" if stop else "",
            stop_requested=stop,
        )
        path = names.thermal_snapshot_file(gpu_index)
        SnapshotWriter(path, f"thermal@{gpu_index}", LASTING_MILLISECONDS).publish(data)

    def fall_silent(self, gpu_index: int) -> None:
        names.thermal_snapshot_file(gpu_index).unlink()

    async def open_up(self) -> None:
        await self.supervisor.begin()
        self.supervisor.open_up(DIGEST)

    async def until(self, wanted: Callable[[GuardData], bool]) -> GuardData:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                await self.supervisor.turn()
                if wanted(self.published[-1]):
                    return self.published[-1]

    async def turns(self, count: int) -> GuardData:
        for _ in range(count):
            self.supervisor.wake()
            await self.supervisor.turn()
        return self.published[-1]

    def asked_of(self, number: int) -> list[str]:
        return [
            each.split()[0] for each in self.systemd.asked if each.endswith(worker_unit(number))
        ]


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(heat, "CALM_SECONDS", (0.0,))
    monkeypatch.setattr(placement, "PLAN_FILE", tmp_path / "plan.json")
    monkeypatch.setattr(names, "GATEWAY_STATE_FILE", tmp_path / "gateway.json")
    monkeypatch.setattr(names, "thermal_snapshot_file", lambda index: tmp_path / f"{index}.json")
    SnapshotWriter(tmp_path / "plan.json", "placement", LASTING_MILLISECONDS).publish(plan())
    SnapshotWriter(tmp_path / "gateway.json", "gateway", LASTING_MILLISECONDS).publish(gateway())
    async with private_bus([POLICY]) as bus, systemd(bus) as peer:
        peer.add(names.SHUTDOWN_UNIT, names.GATEWAY_SOCKET_UNIT)
        peer.add(names.THERMAL_TARGET, names.SCAN_TARGET)
        peer.add(names.NUMA_UNIT, worker_unit(0), worker_unit(1))
        connection = Bus(bus.address)
        await connection.connect()
        made = Node(tmp_path, peer, connection)
        made.say(0, ThermalState.NORMAL)
        made.say(1, ThermalState.NORMAL)
        yield made
        await connection.close()


def both_ready(data: GuardData) -> bool:
    return data.workers_ready == 2


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    told = [getattr(each, "fields", {}) for each in caplog.records]
    return [
        (each["GPUWARDEN_EVENT"], each["GPU"])
        for each in told
        if "heat" in each.get("GPUWARDEN_EVENT", "")
    ]


async def test_a_card_that_asks_for_it_has_its_workers_stopped_and_gets_them_back(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await node.open_up()
    await node.until(both_ready)
    node.say(0, ThermalState.CRITICAL, stop=True)
    data = await node.until(lambda data: data.workers[0].state is WorkerState.STOPPED)
    assert data.state is ServiceState.DEGRADED
    assert data.reasons == ["GPU 0 is too hot, its workers are stopped: 3 C below its shutdown"]
    assert (data.workers[0].held, data.workers[0].wanted) == ("heat", True)
    assert data.workers[1].state is WorkerState.READY
    assert node.asked_of(0) == ["start", "stop"]
    node.say(0, ThermalState.CRITICAL)
    assert (await node.turns(3)).workers[0].state is WorkerState.STOPPED
    node.say(0, ThermalState.RECOVERING)
    data = await node.until(both_ready)
    assert data.reasons == []
    assert node.asked_of(0) == ["start", "stop", "start"]
    assert node.asked_of(1) == ["start"]
    assert events(caplog) == [
        ("workers-stopped-for-heat", "0"),
        ("workers-started-after-heat", "0"),
    ]


async def test_a_worker_started_by_hand_on_a_card_too_hot_is_stopped_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuwarden.guard.workers.BUS_RETRY_SECONDS", 0.0)
    await node.open_up()
    await node.until(both_ready)
    node.say(0, ThermalState.CRITICAL, stop=True)
    await node.until(lambda data: data.workers[0].state is WorkerState.STOPPED)
    node.systemd.change(worker_unit(0), "active")
    await node.until(lambda _: node.asked_of(0).count("stop") == 2)


async def test_a_worker_that_was_still_loading_is_stopped_and_that_is_no_failure_of_its(
    node: Node,
) -> None:
    node.systemd.slow.add(worker_unit(0))
    await node.open_up()
    await node.until(lambda data: data.workers[0].state is WorkerState.STARTING)
    assert node.supervisor.occupants(0) == [0]
    node.say(0, ThermalState.CRITICAL, stop=True)
    await node.until(lambda data: data.workers[0].state is WorkerState.STOPPED)
    assert node.asked_of(0) == ["start", "stop"]
    data = await node.turns(3)
    assert (data.workers[0].state, data.workers[0].last_error) == (WorkerState.STOPPED, "")
    node.systemd.slow.clear()
    node.say(0, ThermalState.NORMAL)
    await node.until(both_ready)


@pytest.mark.parametrize("state", [ThermalState.BLIND, ThermalState.LOST, ThermalState.CRITICAL])
async def test_a_card_that_is_not_known_to_be_cool_gets_no_worker_back(
    node: Node, state: ThermalState
) -> None:
    await node.open_up()
    await node.until(both_ready)
    node.say(0, ThermalState.CRITICAL, stop=True)
    await node.until(lambda data: data.workers[0].state is WorkerState.STOPPED)
    node.say(0, state)
    await node.turns(3)
    node.fall_silent(0)
    data = await node.turns(3)
    assert data.workers[0].held == "heat"
    assert node.asked_of(0) == ["start", "stop"]


async def test_a_worker_that_an_operator_had_stopped_stays_down_after_the_heat(node: Node) -> None:
    await node.open_up()
    await node.until(both_ready)
    node.systemd.change(worker_unit(0), "inactive")
    await node.until(lambda data: not data.workers[0].wanted)
    node.say(0, ThermalState.CRITICAL, stop=True)
    await node.until(lambda data: data.workers[0].held == "heat")
    node.say(0, ThermalState.NORMAL)
    await node.until(lambda data: data.workers[0].held == "")
    await node.turns(3)
    assert node.asked_of(0) == ["start"]


async def test_a_new_guard_keeps_a_hot_cards_workers_down_and_starts_them_when_it_has_cooled(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    await node.open_up()
    await node.until(both_ready)
    node.say(0, ThermalState.CRITICAL, stop=True)
    await node.until(lambda data: data.workers[0].state is WorkerState.STOPPED)
    caplog.clear()
    node.say(0, ThermalState.CRITICAL)
    node.new_supervisor()
    await node.open_up()
    data = await node.turns(4)
    assert (data.workers[0].state, data.state) == (WorkerState.STOPPED, ServiceState.DEGRADED)
    assert events(caplog) == []
    node.say(0, ThermalState.NORMAL)
    await node.until(both_ready)
    assert node.asked_of(0) == ["start", "stop", "start"]


async def test_a_new_guard_leaves_a_worker_down_that_an_operator_had_stopped(node: Node) -> None:
    await node.open_up()
    await node.until(both_ready)
    node.systemd.change(worker_unit(0), "inactive")
    await node.until(lambda data: not data.workers[0].wanted)
    node.new_supervisor()
    await node.open_up()
    await node.until(lambda _: node.systemd.asked.count(f"start {names.THERMAL_TARGET}") == 2)
    data = await node.turns(3)
    assert not data.workers[0].wanted
    assert node.asked_of(0) == ["start"]


async def test_no_worker_is_started_on_a_released_card_until_it_is_taken_back(node: Node) -> None:
    node.say(0, ThermalState.RELEASED)
    await node.open_up()
    data = await node.until(lambda data: data.workers[1].state is WorkerState.READY)
    assert node.asked_of(0) == []
    assert data.reasons == ["GPU 0 is released"]
    assert data.state is ServiceState.DEGRADED
    node.fall_silent(0)
    assert (await node.turns(3)).workers[0].held == "released"
    node.say(0, ThermalState.NORMAL)
    await node.until(both_ready)


async def test_a_card_being_released_gets_no_worker_from_the_question_on(node: Node) -> None:
    node.systemd.units[worker_unit(0)].active_state = "failed"
    await node.supervisor.begin()
    assert node.supervisor.occupants(0) == []
    with node.supervisor.releasing(0):
        node.supervisor.open_up(DIGEST)
        await node.until(lambda data: data.workers[1].state is WorkerState.READY)
        assert node.supervisor.occupants(1) == [1]
    await node.turns(3)
    assert node.asked_of(0) == []


async def test_a_release_that_failed_holds_nothing_back(node: Node) -> None:
    await node.supervisor.begin()
    with pytest.raises(RuntimeError), node.supervisor.releasing(0):
        raise RuntimeError("its guard is dead")
    node.supervisor.open_up(DIGEST)
    await node.until(both_ready)
    assert node.supervisor.occupants(0) == [0]
