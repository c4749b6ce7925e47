# SPDX-License-Identifier: Apache-2.0
"""The life of a server that a worker runs: its start, its end, and that of its worker."""

import asyncio
import os
import re
import signal

import openai
import pytest

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import Holder, ScanData
from tests.integration.command_server import (
    answers_when,
    ask,
    command_settings,
    server_of,
    serving,
)
from tests.integration.gateway_node import gateway_node
from tests.integration.real_worker import openai_client, real_worker
from tests.integration.worker_peer import Node, is_running, until


async def test_a_server_that_dies_ends_its_worker_at_once_and_its_requests_go_to_the_next() -> None:
    async with serving("--child") as (node, client, worker, port):
        server, (child,) = server_of(worker), re.findall(r"child (\d+)", worker.log())
        hung = asyncio.create_task(ask(client, "hang"))
        await answers_when(port, len)
        async with real_worker(node, number=1, engine="echo"):
            os.kill(server, signal.SIGKILL)
            assert await worker.ended() == 70
            assert (await hung).choices[0].message.content == "hang"
        os.kill(int(child), signal.SIGKILL)  # in a unit systemd does it
        assert f"its server (PID {server}) was killed by signal 9" in worker.log()


async def test_a_question_that_kills_the_server_is_given_up_after_three() -> None:
    async with gateway_node() as node, openai_client(node) as client:
        asking = asyncio.create_task(ask(client, "die"))
        for _ in range(3):
            async with real_worker(node, **command_settings()) as worker:
                assert await worker.ended() == 70
                await node.until(lambda: not node.service.dispatcher.links)
        with pytest.raises(openai.InternalServerError) as caught:
            await asking
        assert caught.value.type == "worker_crashed"


async def test_sigterm_lets_what_runs_finish_and_then_ends_the_server() -> None:
    async with serving() as (_, client, worker, port):
        server = server_of(worker)
        asking = asyncio.create_task(ask(client, "slow 50"))
        await answers_when(port, len)
        worker.process.terminate()
        assert len((await asking).choices[0].message.content.split()) == 50
        assert await worker.ended() == 0
        assert not is_running(server)


async def test_a_worker_that_is_killed_takes_its_server_along() -> None:
    async with serving() as (_, _, worker, _):
        server = server_of(worker)
        worker.process.kill()
        await until(lambda: not is_running(server), "the server has ended")


async def test_a_server_that_ends_while_it_starts_is_quoted(node: Node) -> None:
    whole = command_settings("--fail", "CUDA is not there")
    async with node.worker(**whole) as worker:
        assert await worker.ended() == 70
    status = [line for line in node.told_so_far() if line.startswith("STATUS=failed")]
    assert "ended with status 3: CUDA is not there" in status[0]


async def test_options_that_are_wrong_are_all_named_and_not_tried_again(node: Node) -> None:
    options = {"command": ["vllm"], "ready": "/health"}
    async with node.worker(engine="command", options=options) as worker:
        assert await worker.ended() == 78
    for said in ("command is ['vllm']", "port is missing", "ready is no such option"):
        assert said in worker.log()


async def test_it_is_not_ready_before_its_page_answers_and_can_be_stopped_meanwhile(
    node: Node,
) -> None:
    gate = node.gate("listen")
    async with node.worker(**command_settings("--stubborn", "--wait-for", gate.path)) as worker:
        await node.told_systemd("STATUS=loading command: its server starts")
        server = server_of(worker)
        worker.process.terminate()
        assert await worker.ended() == 0
        assert not is_running(server)


async def test_it_is_not_ready_before_the_scan_of_its_card_lists_it(node: Node) -> None:
    publish = SnapshotWriter(node.folder / "1.json", "scan", 600_000).publish
    publish(scan_of_card_1())
    whole = command_settings() | {"gpu_index": 1, "scan_folder": str(node.folder)}
    async with node.worker(**whole) as worker:
        await node.told_systemd(
            "STATUS=loading command: its server answers; waiting for it to be on"
        )
        publish(scan_of_card_1(7))
        assert not [line for line in node.told_so_far() if line == "READY=1"]
        publish(scan_of_card_1(7, 0))
        await node.told_systemd("READY=1")
        assert is_running(worker.pid)


def scan_of_card_1(*workers: int) -> ScanData:
    """A complete scan that lists these workers' servers."""
    holders = [
        Holder(
            pid=100 + number,
            start_time_ticks=1,
            holder_class="ours",
            command="vllm",
            uid=1,
            control_group=f"/medgemma-worker@{number}.service",
            worker=number,
        )
        for number in workers
    ]
    return ScanData(gpu_index=1, gpu_uuid="GPU-1", state="scanning", scans=1, holders=holders)
