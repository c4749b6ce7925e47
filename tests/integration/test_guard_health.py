# SPDX-License-Identifier: Apache-2.0
"""The supervisor over a node whose workers are unwell: what is published, asked and restarted."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.bus.bus import Bus
from gpuwarden.config.health import HealthSettings
from gpuwarden.control.memory import WorkerMemory
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.socket import ControlServer, serve
from gpuwarden.control.states import GuardData, Holder
from gpuwarden.guard import health, kernel, placement
from gpuwarden.guard.supervisor import Supervisor
from gpuwarden.names import worker_unit
from gpuwarden.systemd.units import Systemd
from gpuwarden.values import ServiceState, WorkerState
from tests.integration.bus_states import gateway
from tests.integration.private_bus import private_bus
from tests.integration.scanned_cards import LASTING_MILLISECONDS, ScannedCards
from tests.integration.supervised_node import DIGEST, plan
from tests.integration.systemd_peer import POLICY, SystemdPeer, systemd
from tests.integration.test_guard_heat import both_ready
from tests.machines import gateway_worker

DEADLINE_SECONDS = 30.0
MEBIBYTE = 2**20


def group_of(number: int) -> str:
    return f"/medgemma.slice/medgemma-worker@{number}.service"


class Node:
    """Two cards with a worker each, a front door that says what the test wants, the supervisor."""

    def __init__(self, folder: Path, peer: SystemdPeer, bus: Bus, cards: ScannedCards) -> None:
        self.folder = folder
        self.systemd = peer
        self.cards = cards
        self.published: list[GuardData] = []
        self.outcomes: dict[int, str] = {}
        self.asked: list[int] = []
        self.recycled: list[tuple[int, str]] = []
        self.supervisor = Supervisor(Systemd(bus), self.published.append)
        self.supervisor._care._checkup.recycle = self._recycle
        self._gateway = SnapshotWriter(names.GATEWAY_STATE_FILE, "gateway", LASTING_MILLISECONDS)

    def _recycle(self, number: int, reason: str) -> bool:
        self.recycled.append((number, reason))
        return True

    def canary(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the front door answers."""
        number = request["number"]
        self.asked.append(number)
        pid = self.systemd.units[worker_unit(number)].main_pid
        return {"pid": pid, "outcome": self.outcomes[number], "detail": "as the test says"}

    def connect(self, **changes: dict[str, Any]) -> None:
        """The front door knows both workers; ``worker_0={...}`` says what is different."""
        workers = [
            gateway_worker(number, pid=self.systemd.units[worker_unit(number)].main_pid).model_copy(
                update=changes.get(f"worker_{number}", {})
            )
            for number in (0, 1)
        ]
        self._gateway.publish(gateway(queue_depth=0, workers=workers))

    def on_card(self, number: int) -> Holder:
        return Holder(
            pid=5000 + number,
            start_time_ticks=1,
            holder_class="ours",
            command="python3",
            uid=990,
            unit=worker_unit(number),
            control_group=group_of(number),
            worker=number,
            vram_bytes=2**30,
        )

    def use_memory(self, number: int, held: int) -> None:
        folder = self.folder / "cgroup" / group_of(number).lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        files = 500 * MEBIBYTE  # a model's weights, read from the disk
        (folder / "memory.current").write_text(f"{held + 2 * files}\n")
        (folder / "memory.stat").write_text(f"anon 1\nactive_file {files}\ninactive_file {files}\n")
        (folder / "memory.high").write_text("max\n")
        (folder / "memory.max").write_text(f"{100 * MEBIBYTE}\n")

    async def open_up(self) -> None:
        await self.supervisor.begin()
        self.supervisor.open_up(DIGEST)
        await self.until(both_ready)
        self.connect()

    async def until(self, wanted: Callable[[GuardData], object]) -> GuardData:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                self.supervisor.wake()
                await self.supervisor.turn()
                if wanted(self.published[-1]):
                    return self.published[-1]
                await asyncio.sleep(0)  # the jobs beside the loop

    async def turns(self, count: int) -> GuardData:
        for _ in range(count):
            self.supervisor.wake()
            await self.supervisor.turn()
        return self.published[-1]

    async def scans(self, count: int, *holders: Holder, **changes: Any) -> GuardData:
        """So many scans of card 0, each looked at twice."""
        for _ in range(count):
            self.cards.scan(0, *holders, **changes)
            await self.turns(2)
        return self.published[-1]


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(placement, "PLAN_FILE", tmp_path / "plan.json")
    monkeypatch.setattr(names, "GATEWAY_STATE_FILE", tmp_path / "gateway.json")
    monkeypatch.setattr(names, "GATEWAY_CONTROL_SOCKET", tmp_path / "gateway.sock")
    read_memory = kernel.memory
    monkeypatch.setattr(kernel, "memory", lambda group: read_memory(group, tmp_path / "cgroup"))
    cards = ScannedCards(tmp_path, monkeypatch)
    for gpu in (0, 1):
        cards.use(gpu, 0)
        cards.scan(gpu)
    SnapshotWriter(tmp_path / "plan.json", "placement", LASTING_MILLISECONDS).publish(plan())
    SnapshotWriter(tmp_path / "gateway.json", "gateway", LASTING_MILLISECONDS).publish(gateway())
    async with private_bus([POLICY]) as bus, systemd(bus) as peer:
        peer.add(names.SHUTDOWN_UNIT, names.GATEWAY_SOCKET_UNIT, names.THERMAL_TARGET)
        peer.add(names.NUMA_UNIT, worker_unit(0), worker_unit(1))
        for number in (0, 1):
            peer.units[worker_unit(number)].control_group = group_of(number)
        connection = Bus(bus.address)
        await connection.connect()
        made = Node(tmp_path, peer, connection, cards)
        server: ControlServer = await serve(names.GATEWAY_CONTROL_SOCKET, {"canary": made.canary})
        yield made
        await server.close()
        await connection.close()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [getattr(each, "fields", {}).get("GPUWARDEN_EVENT", "") for each in caplog.records]
    return [each for each in told if each in ("worker-ghost", "worker-stuck", "worker-recycled")]


async def test_a_ghost_is_asked_shown_and_restarted_with_the_reason(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node.outcomes[0] = "lost"
    await node.open_up()
    await node.scans(2)
    assert node.asked == []
    await node.scans(1)
    data = await node.until(lambda data: data.workers[0].state is WorkerState.GHOST)
    assert node.asked == [0]
    assert data.state is ServiceState.DEGRADED
    assert "as the test says" in data.workers[0].reason
    assert data.reasons[0].startswith("worker 0 is ghost: none of its processes")
    assert data.workers[1].state is WorkerState.READY
    await node.until(lambda _: node.recycled)
    await node.turns(5)  # asked once, not each second
    (number, reason) = node.recycled[0]
    assert (number, reason.split(":")[0], len(node.recycled)) == (0, "ghost", 1)
    assert events(caplog) == ["worker-ghost"]


@pytest.mark.parametrize("outcome", ["answered", "unused", "busy", "silent"])
async def test_a_worker_that_does_not_say_that_it_is_lost_is_left_alone(
    node: Node, outcome: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(health, "ASK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(health, "BELIEVED_SECONDS", 0.0)
    node.outcomes[0] = outcome
    await node.open_up()
    await node.scans(3)
    await node.until(lambda _: node.asked == [0])
    while len(node.asked) < 3:
        data = await node.scans(1)
        await asyncio.sleep(0.01)
    assert data.workers[0].state is WorkerState.READY
    assert node.recycled == []
    told = [each for each in caplog.records if "it is left alone" in each.getMessage()]
    assert len(told) == 1  # not each time that it is asked


@pytest.mark.parametrize("doubt", ["problem", "blind", "released", "gone"])
async def test_what_is_unknown_of_a_card_is_said_and_ends_nobody(node: Node, doubt: str) -> None:
    node.outcomes[0] = "lost"
    await node.open_up()
    await node.scans(2)
    changes = {"problem": {"problem": "no permission"}}.get(doubt, {"state": doubt})
    if doubt == "gone":
        node.cards.vanish(0)
        data = await node.turns(2)
    else:
        data = await node.scans(2, **changes)
    assert data.scans[0] != ""
    assert data.scans[1] == ""
    data = await node.scans(2)
    assert (node.asked, node.recycled, data.scans[0]) == ([], [], "")


async def test_a_front_door_that_is_gone_makes_no_ghost(node: Node) -> None:
    await node.open_up()
    names.GATEWAY_CONTROL_SOCKET.unlink()
    data = await node.scans(6)
    assert data.workers[0].state is WorkerState.READY
    assert node.recycled == []


async def test_a_new_guard_begins_to_count_anew(node: Node) -> None:
    node.outcomes[0] = "lost"
    await node.open_up()
    await node.scans(2)
    node.supervisor = Supervisor(node.supervisor.systemd, node.published.append)
    await node.supervisor.begin()
    await node.scans(2)
    assert node.asked == []


async def test_a_worker_whose_batch_does_not_end_is_stuck_and_restarted_after_the_grace(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    grace = HealthSettings(stuck_grace_seconds=1)
    node.supervisor._care._checkup.settings = lambda: grace
    await node.open_up()
    await node.scans(1, node.on_card(0))
    node.connect(worker_0={"stalled": True, "outstanding": 1, "state": "busy"})
    data = await node.turns(2)
    assert data.workers[0].state is WorkerState.STUCK
    assert data.workers_ready == 1
    assert data.reasons == ["worker 0 is stuck: a batch is past its time limit and has not ended"]
    assert node.recycled == []
    await node.until(lambda _: node.recycled)
    assert node.recycled[0] == (0, "stuck: a batch is past its time limit and has not ended")
    assert events(caplog) == ["worker-stuck"]


async def test_a_worker_that_grew_is_recycled_when_it_is_idle(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "OVER_MEMORY_SECONDS", 0.0)
    await node.open_up()
    node.use_memory(0, 50 * MEBIBYTE)
    data = await node.scans(1, node.on_card(0))
    memory = data.workers[0].memory_bytes, data.workers[0].memory_soft_limit_bytes
    assert memory == (50 * MEBIBYTE, 90 * MEBIBYTE)
    node.use_memory(0, 95 * MEBIBYTE)
    node.connect(worker_0={"outstanding": 1, "state": "busy"})
    await node.turns(3)
    assert node.recycled == []
    node.connect()
    await node.until(lambda _: node.recycled)
    expected = "memory: it holds 95 MiB of memory, over its soft limit of 90 MiB"
    assert node.recycled == [(0, expected)]
    assert events(caplog) == ["worker-recycled"]


async def test_a_worker_whose_card_memory_nothing_milder_frees_is_recycled_when_it_is_idle(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    full = WorkerMemory(limit_bytes=1000, remedy="recycle")
    holding = {"vram": full, "vram_reserved_bytes": 910}
    await node.open_up()
    await node.scans(1, node.on_card(0))
    node.connect(worker_0={**holding, "outstanding": 1, "state": "busy"})
    data = await node.turns(3)
    assert data.workers[0].vram == full
    assert node.recycled == []
    node.connect(worker_0=holding)
    await node.until(lambda _: node.recycled)
    ((number, reason),) = node.recycled
    assert (number, reason.split(",")[0]) == (0, f"card memory: {SHARE}")
    assert events(caplog) == ["worker-recycled"]


SHARE = "it holds 91% of its share of the card"


async def test_orphans_are_in_the_state_that_everybody_reads(node: Node) -> None:
    await node.open_up()
    stranger = node.on_card(0).model_copy(
        update={"pid": 7000, "holder_class": "container", "unit": "", "worker": None}
    )
    data = await node.scans(2, node.on_card(0), stranger)
    assert [(each.pid, each.gpu, each.scans_seen) for each in data.orphans] == [(7000, 0, 2)]
