# SPDX-License-Identifier: Apache-2.0
# What operators order of workers, carried out by a real supervisor with a real gateway.

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gpuwarden.bus.errors import Busy, NoSuchWorker, Unavailable
from gpuwarden.control.states import GuardData, Xid
from gpuwarden.guard import aftermath, stopping, workers
from gpuwarden.names import SHUTDOWN_UNIT, worker_unit
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.integration.supervised_node import SupervisedNode, supervised_node
from tests.waiting import DEADLINE_SECONDS

FIRST = worker_unit(0)


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SupervisedNode]:
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(aftermath, "READ_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(aftermath, "BACK_SECONDS", 0.2)
    async with supervised_node(tmp_path, monkeypatch) as made:
        await made.open_up()
        await made.until(lambda data: data.workers_ready == 2)
        yield made


def is_idle(data: GuardData) -> bool:
    return not any(worker.operation for worker in data.workers)


def stopped(data: GuardData) -> bool:
    return data.workers[0].state is WorkerState.STOPPED and is_idle(data)


def drained(data: GuardData) -> bool:
    worker = data.workers[0]
    return worker.operation == "drained" and worker.state is WorkerState.DRAINING


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "fields", {}).get("GPUWARDEN_EVENT") == event
    ]


async def test_a_stop_is_accepted_at_once_and_stays_after_the_guards_restart(
    node: SupervisedNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node.supervisor.operations.stop(0)
    accepted = node.data.workers[0]
    assert (accepted.operation, accepted.wanted) == ("stopping", False)
    data = await node.until(stopped)
    assert "stopped; 0 processes ended" in data.workers[0].last_exit
    assert [each.split(" in ")[0] for each in told(caplog, "worker-ended")] == ["worker 0 stopped"]
    assert node.asked_of(0) == ["start", "stop"]
    await node.restart_guard()
    data = await node.until(lambda data: data.workers_ready == 1)
    assert (data.workers[0].wanted, node.asked_of(0)) == (False, ["start", "stop"])
    assert node.gateway.service.dispatcher.drained == set()


async def test_a_restart_drains_stops_and_starts(node: SupervisedNode) -> None:
    before = node.data.workers[0].main_pid
    node.supervisor.operations.restart(0)
    assert node.data.workers[0].operation == "restarting"
    data = await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    assert data.workers[0].main_pid != before
    assert data.workers[0].wanted
    assert node.asked_of(0) == ["start", "stop", "start"]
    assert node.gateway.service.dispatcher.drained == set()


async def test_a_stopped_worker_is_started(node: SupervisedNode) -> None:
    node.supervisor.operations.stop(0)
    await node.until(stopped)
    node.supervisor.operations.start(0)
    data = await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    assert data.workers[0].wanted


async def test_a_drained_worker_stays_up_and_gets_work_when_it_is_started(
    node: SupervisedNode,
) -> None:
    node.supervisor.operations.drain(0)
    data = await node.until(drained)
    assert data.reasons[0] == "worker 0 is draining (drained)"
    assert node.gateway.service.dispatcher.drained == {0}
    node.supervisor.operations.drain(0)  # once more is no error
    await node.until(drained)
    node.supervisor.operations.start(0)
    await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    assert node.gateway.service.dispatcher.drained == set()
    assert node.asked_of(0) == ["start"]


async def test_a_drain_outlives_guard_and_gateway(node: SupervisedNode) -> None:
    node.supervisor.operations.drain(0)
    await node.until(drained)
    await node.restart_guard()
    node.gateway.service.dispatcher.drain(0, False)  # as one that has just been started
    await node.until(lambda data: data.gateway is not None and data.gateway.drained == [])
    await node.until(lambda data: data.gateway is not None and data.gateway.drained == [0])
    assert drained(node.data)


async def test_a_worker_that_ignores_sigterm_is_killed_after_the_grace(
    node: SupervisedNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.systemd.stubborn.add(FIRST)
    node.supervisor.operations.stop(0)
    data = await node.until(stopped)
    assert node.asked_of(0) == ["start", "stop", "kill"]
    assert data.workers[0].last_error == ""
    assert len(told(caplog, "worker-killed")) == 1


async def test_everybody_who_waits_for_one_start_hears_of_its_end(node: SupervisedNode) -> None:
    node.supervisor.operations.stop(0)
    await node.until(stopped)
    node.systemd.slow.add(FIRST)
    starts = [
        asyncio.create_task(node.supervisor.systemd.start(FIRST, timeout_seconds=10))
        for _ in range(3)
    ]
    await node.until(lambda _: node.asked_of(0).count("start") == 4)
    starts[0].cancel()
    node.systemd.become_ready(FIRST)
    await asyncio.wait_for(asyncio.gather(*starts[1:]), DEADLINE_SECONDS)


async def test_a_systemd_that_does_not_answer_is_asked_again(
    node: SupervisedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "BUS_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(workers, "BUS_RETRY_SECONDS", 0.0)
    busy = node.systemd.silent
    busy.update({f"stop {FIRST}": 2, f"start {FIRST}": 1})
    node.supervisor.operations.restart(0)
    await node.until(lambda data: data.workers_ready == 2 and is_idle(data) and not busy)
    assert node.asked_of(0) == ["start", "stop", "start"]
    assert node.gateway.service.dispatcher.drained == set()


async def test_one_thing_at_a_time_with_each_worker(node: SupervisedNode) -> None:
    node.systemd.stubborn.add(FIRST)
    operations = node.supervisor.operations
    operations.restart(0)
    for order in (operations.start, operations.stop, operations.restart, operations.drain):
        with pytest.raises(Busy, match=r"worker 0 is busy \(restarting\)"):
            order(0)
    with pytest.raises(Busy):
        node.supervisor.rolling.begin()
    assert not operations.recycle(0, "ghost")
    operations.restart(1)
    await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    assert node.asked_of(0) == ["start", "stop", "kill", "start"]
    assert node.asked_of(1) == ["start", "stop", "start"]


async def test_what_cannot_be_is_refused_and_changes_nothing(node: SupervisedNode) -> None:
    operations = node.supervisor.operations
    with pytest.raises(NoSuchWorker, match="no worker 7"):
        operations.stop(7)
    node.say(1, ThermalState.RELEASED)
    await node.until(lambda data: data.workers[1].held == "released")
    for order in (operations.start, operations.restart):
        with pytest.raises(Unavailable, match="GPU 1 is released"):
            order(1)
    operations.stop(0)
    await node.until(stopped)
    with pytest.raises(Unavailable, match="worker 0 is stopped: there is nothing to drain"):
        operations.drain(0)
    node.systemd.change(SHUTDOWN_UNIT, "inactive")
    await node.until(lambda data: data.state is ServiceState.STOPPING)
    with pytest.raises(Unavailable, match="the service is stopping"):
        operations.start(0)
    with pytest.raises(Unavailable, match="the service is stopping"):
        node.supervisor.rolling.begin()
    assert node.asked_of(1) == ["start"]


async def test_a_worker_that_is_not_well_is_recycled_with_the_reason(
    node: SupervisedNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert node.supervisor.operations.recycle(0, "ghost")
    assert node.data.workers[0].operation == "restarting: ghost"
    assert node.data.workers[0].reason == "restarting: ghost"
    data = await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    assert "stopped (ghost)" in data.workers[0].last_exit
    assert told(caplog, "worker-operation")[-1].endswith("s (ghost)")


async def test_a_rolling_restart_takes_one_card_after_the_other(node: SupervisedNode) -> None:
    begun = len(node.systemd.asked)
    node.supervisor.rolling.begin()
    assert [worker.operation for worker in node.data.workers] == ["waiting: rolling restart"] * 2
    assert node.data.workers_ready == 2
    await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    asked = [each.replace("medgemma-worker@", "") for each in node.systemd.asked[begun:]]
    assert asked == ["stop 0.service", "start 0.service", "stop 1.service", "start 1.service"]


async def test_a_rolling_restart_leaves_out_what_nobody_wants(node: SupervisedNode) -> None:
    node.supervisor.operations.stop(0)
    await node.until(stopped)
    node.supervisor.rolling.begin()
    await node.until(lambda data: data.workers_ready == 1 and is_idle(data))
    assert node.asked_of(0) == ["start", "stop"]


async def test_a_rolling_restart_stops_at_the_first_that_does_not_come_back(
    node: SupervisedNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.systemd.failing.add(FIRST)
    node.supervisor.rolling.begin()
    data = await node.until(lambda data: bool(node.supervisor.rolling.faults) and is_idle(data))
    assert node.asked_of(1) == ["start"]
    assert any("the rolling restart stopped at GPU 0: worker 0" in why for why in data.reasons)
    assert len(told(caplog, "rolling-restart-stopped")) == 1
    node.systemd.failing.clear()
    node.supervisor.operations.start(0)
    await node.until(lambda data: data.state is ServiceState.RUNNING)


async def test_a_new_guard_goes_on_with_a_restart_and_with_a_rolling_one(
    node: SupervisedNode,
) -> None:
    node.systemd.stubborn.add(FIRST)
    node.supervisor.rolling.begin()
    await node.until(lambda data: data.workers[0].operation == "restarting: rolling restart")
    node.systemd.stubborn.clear()
    await node.restart_guard()
    await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    assert node.asked_of(1) == ["start", "stop", "start"]


async def test_a_restart_by_systemd_keeps_the_reason(
    node: SupervisedNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.systemd.die(FIRST, "signal", 9)
    data = await node.until(lambda data: data.workers[0].state is WorkerState.STARTING)
    assert data.reasons == ["worker 0 is starting (killed by SIGKILL)"]
    node.systemd.change(FIRST, "active")
    data = await node.until(lambda data: data.workers_ready == 2)
    assert data.workers[0].last_error == "killed by SIGKILL"
    assert (data.workers[0].reason, data.state) == ("", ServiceState.RUNNING)
    assert "killed by SIGKILL" in data.workers[0].last_exit
    assert len(told(caplog, "worker-died")) == 1
    await node.restart_guard()
    data = await node.until(lambda data: data.workers_ready == 2)
    assert data.workers[0].last_error == "killed by SIGKILL"


Cause = Callable[[SupervisedNode], None]


def by_xid(node: SupervisedNode) -> None:
    node.say(0, xids=(Xid(number=119, unix_microseconds=5),))


def by_card(node: SupervisedNode) -> None:
    node.say(0, recovery_action="gpu-reset")


async def out_of_service(node: SupervisedNode, cause: Cause) -> GuardData:
    cause(node)
    return await node.until(
        lambda data: (
            data.workers[0].held == "reset" and data.workers[0].state is WorkerState.STOPPED
        )
    )


@pytest.mark.parametrize("cause", [by_xid, by_card])
async def test_a_card_that_needs_a_reset_is_out_of_service_until_it_had_one(
    node: SupervisedNode, cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = await out_of_service(node, cause)
    assert data.state is ServiceState.DEGRADED
    assert "GPU 0 is out of service, it needs a reset" in data.reasons[0]
    assert "nvidia-smi -r -i 0" in data.reasons[0]
    assert data.workers[0].wanted
    assert node.asked_of(1) == ["start"]
    await node.restart_guard()
    await out_of_service(node, cause)
    xids = (Xid(number=119, unix_microseconds=5),) if cause is by_xid else ()
    node.say(0, ThermalState.RELEASED, xids=xids)
    await node.until(lambda data: data.gpus[0].state is ThermalState.RELEASED)
    node.say(0, xids=xids)
    await node.until(lambda data: data.workers_ready == 2)
    assert len(told(caplog, "card-out-of-service")) == 1
    assert len(told(caplog, "card-in-service")) == 1


async def test_an_operator_may_try_a_card_that_does_not_ask_for_a_reset_itself(
    node: SupervisedNode,
) -> None:
    await out_of_service(node, by_xid)
    node.supervisor.operations.start(0)
    await node.until(lambda data: data.workers_ready == 2 and is_idle(data))
    await out_of_service(node, by_card)
    with pytest.raises(Unavailable, match="GPU 0 needs a reset first"):
        node.supervisor.operations.start(0)


async def test_an_applications_xid_stops_nothing(node: SupervisedNode) -> None:
    node.say(0, xids=tuple(Xid(number=number, unix_microseconds=1) for number in (13, 31, 94, 45)))
    await node.until(lambda data: len(data.gpus[0].xids) == 4)
    await asyncio.wait_for(node.supervisor.next_look(), DEADLINE_SECONDS)
    assert node.data.workers_ready == 2
