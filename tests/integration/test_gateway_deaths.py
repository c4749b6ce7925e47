# SPDX-License-Identifier: Apache-2.0
"""Workers die, at any time and of anything: what becomes of the requests that they had."""

import asyncio
import hashlib
import os
import socket
import sys
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path

import pytest

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.marks import SECONDS
from gpuwarden.gateway.setaside import SET_ASIDE_FILE, SetAside
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node
from tests.integration.gateway_process import predict, ready_by_hand

MIB = 1 << 20
ROOT = Path(__file__).parents[2]


async def worker_process(node: GatewayNode, number: int, *arguments: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.gateway_peer",
        str(node.dispatch_path),
        str(number),
        *arguments,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    await node.until(lambda: any(link.peer.pid == process.pid for link in node.ready_links()))
    return process


async def test_requests_of_a_killed_worker_are_answered_by_the_other() -> None:
    images = [os.urandom(size) for size in (100, 70_000, 2 * MIB, 300)]
    async with gateway_node() as node:
        doomed = await worker_process(node, 0, "--hold")
        posted = [asyncio.create_task(node.post(image)) for image in images]
        await node.until(lambda: doomed_holds(node))
        survivor = await worker_process(node, 1)
        doomed.kill()
        await doomed.wait()
        replies = await asyncio.gather(*posted)
        assert [reply.status for reply in replies] == [200] * 4
        assert {reply.json["worker"] for reply in replies} == {1}
        assert [reply.json["answer"]["sha256"] for reply in replies] == [
            hashlib.sha256(image).hexdigest() for image in images
        ]
        assert node.service.dispatcher.queue.retried >= 1
        survivor.kill()
        await survivor.wait()


def doomed_holds(node: GatewayNode) -> bool:
    return any(len(link.leases) >= 2 for link in node.service.dispatcher.links.values())


async def test_workers_may_be_killed_all_the_time_and_everybody_gets_their_own_answer() -> None:
    kills = 8
    async with gateway_node() as node:
        workers = [await worker_process(node, number) for number in range(2)]
        done = asyncio.Event()
        statuses: Counter[int] = Counter()

        async def caller(size: int) -> None:
            while not done.is_set():
                body = os.urandom(size)
                reply = await node.post(body)
                statuses[reply.status] += 1
                if reply.status == 200:
                    assert reply.json["answer"]["sha256"] == hashlib.sha256(body).hexdigest()

        async with asyncio.TaskGroup() as callers:
            for size in (1, 100, 30_000, 65_537, 300_000, 1 << 20, 1_500_000, 3 << 20):
                callers.create_task(caller(size))
            for kill in range(kills):
                victim = kill % 2
                workers[victim].kill()
                await workers[victim].wait()
                workers[victim] = await worker_process(node, victim)
            done.set()
        assert set(statuses) == {200}
        assert statuses[200] > kills
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        for worker in workers:
            worker.kill()
            await worker.wait()


async def test_a_killed_worker_is_noticed_although_a_child_of_it_keeps_the_socket_open() -> None:
    async with gateway_node() as node:
        program = (
            "import os, sys, asyncio\n"
            "from pathlib import Path\n"
            "from tests.integration.gateway_peer import GatewayPeer\n"
            "async def run():\n"
            "    peer = GatewayPeer(Path(sys.argv[1]), 5)\n"
            "    await peer.become_ready()\n"
            "    if os.fork() == 0:\n"
            "        os.read(0, 1)\n"
            "        os._exit(0)\n"
            "    await peer.closed.wait()\n"
            "asyncio.run(run())\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            str(node.dispatch_path),
            stdin=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        await node.until(lambda: len(node.ready_links()) == 1)
        process.kill()
        await node.until(lambda: not node.service.dispatcher.links)
        assert process.stdin is not None
        process.stdin.close()  # the child goes
        await process.wait()


async def test_a_request_that_kills_three_workers_alone_is_given_up() -> None:
    async with gateway_node() as node:
        posted = asyncio.create_task(node.post(b"poison"))
        for _ in range(3):
            worker = await node.worker(auto=False)
            await worker.next_job()
            worker.close()
        reply = await posted
        assert (reply.status, reply.error) == (500, "worker_crashed")
        await node.worker()
        assert (await node.post(b"innocent")).status == 200


@pytest.mark.parametrize("size", [6, 3 * MIB])
async def test_what_killed_three_workers_is_refused_at_once_until_its_time_is_over(
    size: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = os.urandom(size)
    async with gateway_node() as node:
        await kill_three(node, asyncio.create_task(node.post(poison)))
        worker = await node.worker()
        refused = await node.post(poison)
        assert (refused.status, refused.error) == (500, "worker_crashed")
        assert "set aside" in refused.json["error"]["message"]
        job = await node.post(poison, path="/v1/jobs")
        assert (job.status, job.error) == (422, "image_set_aside")
        assert (await node.post(os.urandom(size))).status == 200
        assert (await node.post(poison, path="/predict?question=other")).status == 200
        told = [getattr(record, "fields", {}) for record in caplog.records]
        events = [one for one in told if one.get("GPUWARDEN_EVENT") == "request-set-aside"]
        assert len(events) == 1
        assert "gpuwarden_gateway_set_aside 1.0" in (await node.get("/metrics")).body.decode()
        clock = node.service.dispatcher.set_aside._clock
        monkeypatch.setattr(node.service.dispatcher.set_aside, "_clock", lambda: clock() + SECONDS)
        assert (await node.post(poison)).status == 200
        assert not worker.closed.is_set()
        await node.until(lambda: node.service.pool.in_use_bytes == 0)


async def test_what_was_set_aside_outlives_the_front_door(tmp_path: Path) -> None:
    former = SetAside()
    former.keep_in(tmp_path / SET_ASIDE_FILE)
    await former.put(Body("application/octet-stream", None, 0, 3, inline=b"abc"))
    former.close()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with ready_by_hand(tmp_path, port):
        assert await predict(port) == 500
    assert (tmp_path / SET_ASIDE_FILE).exists()


async def kill_three(node: GatewayNode, posted: asyncio.Task[Reply]) -> None:
    """Three workers that die of the one request that they have."""
    for _ in range(3):
        worker = await node.worker(auto=False)
        await worker.next_job()
        worker.close()
    assert (await posted).status == 500


async def test_the_twins_of_what_killed_three_workers_kill_no_others() -> None:
    async with gateway_node() as node:
        posted = [asyncio.create_task(node.post(b"poison")) for _ in range(4)]
        await node.until(lambda: node.service.dispatcher.queue.depth == 4)
        deaths = 0
        while not all(one.done() for one in posted):
            worker = await node.busy_worker(auto=False)
            having = asyncio.create_task(worker.jobs.get())
            ended = asyncio.ensure_future(asyncio.wait(posted))
            await asyncio.wait([having, ended], return_when=asyncio.FIRST_COMPLETED)
            deaths += having.done()
            having.cancel()
            worker.close()
        assert {one.result().error for one in posted} == {"worker_crashed"}
        assert deaths <= 5  # all together, then one of them three times; perhaps one meanwhile


async def test_one_poisonous_request_does_not_take_its_neighbours_along() -> None:
    async with gateway_node() as node:
        first = await node.worker(auto=False)
        images = [b"poison", b"innocent 1", b"innocent 2", b"innocent 3"]
        posted = [asyncio.create_task(node.post(image)) for image in images]
        await node.until(lambda: first.jobs.qsize() >= 2)
        first.close()
        deaths = 0
        while not all(one.done() for one in posted):
            worker = await node.worker(auto=False)
            while not worker.closed.is_set() and not all(one.done() for one in posted):
                job = await worker.next_job()
                if job.image == b"poison":
                    worker.close()
                    deaths += 1
                else:
                    worker.answer(job)
                    await until_answered(node, job.frame.request)
                await asyncio.sleep(0)
        replies = [one.result() for one in posted]
        assert [reply.status for reply in replies] == [500, 200, 200, 200]
        assert deaths == 3


async def until_answered(node: GatewayNode, request: int) -> None:
    await node.until(lambda: request not in node.service.dispatcher.queue.requests)
