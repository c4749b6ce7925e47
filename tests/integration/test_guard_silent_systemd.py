# SPDX-License-Identifier: Apache-2.0
# A systemd that answers nobody, and a bus that goes away under a job: what the guard makes of it.

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.signals import DAEMON, DAEMON_PATH
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import GuardData
from gpuwarden.guard import units
from gpuwarden.names import worker_unit
from gpuwarden.systemd.units import SYSTEMD, JobError, Systemd
from gpuwarden.values import ServiceState
from tests.integration.private_bus import PrivateBus, private_bus
from tests.integration.supervised_node import SupervisedNode, plan, supervised_node
from tests.integration.systemd_peer import POLICY, SystemdPeer, systemd

FIRST = worker_unit(0)
HAS_OWNER = (DAEMON, DAEMON_PATH, DAEMON, "NameHasOwner")
STALE_SECONDS = 3.0  # what a snapshot is believed for
DEADLINE_SECONDS = 30.0


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SupervisedNode]:
    monkeypatch.setattr(units, "SILENT_SECONDS", 2.0)
    async with supervised_node(tmp_path, monkeypatch) as made:
        await made.open_up()
        await made.until(lambda data: data.workers_ready == 2)
        yield made


def told_of_silence(data: GuardData) -> bool:
    return any("systemd says nothing" in reason for reason in data.reasons)


async def test_a_guard_goes_on_publishing_while_systemd_answers_nothing(
    node: SupervisedNode, tmp_path: Path
) -> None:
    supervisor, publish = node.supervisor, node.supervisor.publish
    again = asyncio.Event()

    def note(data: GuardData) -> None:
        publish(data)
        again.set()

    supervisor.publish = note
    os.kill(node.bus_daemon.pid, signal.SIGSTOP)
    try:
        # Another plan: each unit is asked for again.
        planned = plan().model_copy(update={"notes": ["another"]})
        SnapshotWriter(tmp_path / "plan.json", "placement").publish(planned)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not told_of_silence(node.data):
                await asyncio.wait_for(again.wait(), STALE_SECONDS)
                again.clear()
    finally:
        os.kill(node.bus_daemon.pid, signal.SIGCONT)
    assert node.data.state is ServiceState.DEGRADED
    assert node.data.workers_ready == 2

    node.systemd.change(FIRST, "failed")
    await node.until(lambda data: not told_of_silence(data) and data.workers_ready == 1)


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus([POLICY]) as made:
        yield made


@pytest.fixture
async def manager(bus: PrivateBus) -> AsyncIterator[SystemdPeer]:
    async with systemd(bus) as made:
        made.add(FIRST)
        yield made


@pytest.fixture
async def asker(bus: PrivateBus) -> AsyncIterator[Systemd]:
    connection = Bus(bus.address)
    await connection.connect()

    async def until_systemd_is_back() -> None:
        # The system's own bus has whoever calls systemd wait for that.
        while not (await connection.call(*HAS_OWNER, "s", [SYSTEMD]))[0]:
            pass

    connection.on_connect(until_systemd_is_back)
    yield Systemd(connection)
    await connection.close()


async def begin(asker: Systemd, manager: SystemdPeer) -> "asyncio.Task[None]":
    """A start that takes its time, its job known."""
    manager.slow.add(FIRST)
    starting = asyncio.create_task(asker.start(FIRST, 600))
    while f"start {FIRST}" not in manager.asked:
        await asker.properties(FIRST)
    await asker.properties(FIRST)  # answered after the start
    return starting


@pytest.mark.parametrize(("became", "result"), [("active", "done"), ("failed", "failed")])
async def test_a_job_that_ends_while_there_is_no_bus_is_known_to_have_ended(
    bus: PrivateBus, manager: SystemdPeer, asker: Systemd, became: str, result: str
) -> None:
    await asker.subscribe(lambda: None)
    async with asyncio.timeout(DEADLINE_SECONDS):
        starting = await begin(asker, manager)
        await bus.stop()
        manager.end(FIRST, became, result)
        await bus.start()
        if result == "done":
            await starting
        else:
            with pytest.raises(JobError, match=result):
                await starting


async def test_a_job_that_outlives_the_bus_is_waited_for(
    bus: PrivateBus, manager: SystemdPeer, asker: Systemd
) -> None:
    back = asyncio.Event()
    await asker.subscribe(back.set)
    async with asyncio.timeout(DEADLINE_SECONDS):
        starting = await begin(asker, manager)
        await bus.stop()
        await bus.start()
        await back.wait()
        await asker.properties(FIRST)
        assert not starting.done()
        manager.end(FIRST, "active", "done")
        await starting
