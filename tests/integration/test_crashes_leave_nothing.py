# SPDX-License-Identifier: Apache-2.0
"""Whoever is killed: no image or result stays in memory, on a disk, or in the next one's buffer."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway_node import GatewayNode, ThermalGuards, gateway_node, read_reply
from tests.integration.gateway_process import RUN, ready
from tests.integration.model_classes import filling
from tests.integration.real_worker import real_worker
from tests.integration.worker_peer import Worker, children_of, close_node, make_node, until
from tests.open_files import open_files

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
End = Callable[[GatewayNode], Awaitable[None]]
FORMER, NEXT = b"\xff" * (4 * MIB), b"\x01" * (2 * MIB + 1)  # both want the one buffer of 4 MiB
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))  # noqa: PTH208 - names alone


def memfds(pid: int) -> int:
    """Buffers of a front door that a process has open or mapped."""
    mapped = Path(f"/proc/{pid}/maps").read_text().count("memfd:gpuwarden")
    return open_files(pid, "memfd:gpuwarden") + mapped


async def answered(node: GatewayNode) -> None:
    await node.worker(0)
    assert (await node.post(FORMER)).status == 200


async def hung_up(node: GatewayNode) -> None:
    _, writer = await node.connect()
    writer.write(HEAD % len(FORMER) + FORMER[: 3 * MIB])
    await writer.drain()
    await node.until(lambda: node.service.pool.in_use_bytes > 0)
    writer.transport.abort()


async def worker_killed(node: GatewayNode) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.gateway_peer"),
        *(str(node.dispatch_path), "0", "--hold"),
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    await node.until(lambda: bool(node.ready_links()))
    posted = asyncio.create_task(node.post(FORMER))
    await node.until(lambda: any(one.leases for one in node.service.dispatcher.links.values()))
    process.kill()
    await process.wait()
    posted.cancel()
    await asyncio.wait([posted])


@pytest.mark.parametrize("end", [answered, hung_up, worker_killed])
async def test_the_next_tenant_sees_nothing_of_the_one_before(end: End) -> None:
    async with gateway_node(pool_bytes=4 * MIB, body_limit_bytes=4 * MIB) as node:
        await end(node)
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        for link in list(node.service.dispatcher.links.values()):
            node.service.dispatcher.drain(link.number, drained=True)
        worker = await node.busy_worker(1, auto=False)
        posted = asyncio.create_task(node.post(NEXT))
        job = await worker.next_job()
        whole = worker.mappings[job.frame.meta["body"]["buffer"]][:]
        assert whole == NEXT + bytes(4 * MIB - len(NEXT))
        worker.answer(job)
        assert (await posted).status == 200


async def test_no_mapping_of_a_body_is_in_a_core() -> None:
    async with gateway_node() as node, real_worker(node) as worker:
        await node.post(bytes(3 * MIB))
        for pid in (os.getpid(), *children_of(worker.pid)):
            flags = flags_of_mappings(pid)
            assert flags
            assert all("dd" in one for one in flags), "a mapping would be dumped"


def flags_of_mappings(pid: int) -> list[list[str]]:
    """The kernel's flags of each mapping of a body."""
    found, inside = [], False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            inside = "memfd:gpuwarden" in line
        elif inside and line.startswith("VmFlags:"):
            found.append(line.split()[1:])
    return found


@contextlib.asynccontextmanager
async def a_busy_node(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Worker]]:
    """Processes as on a node, images and results in flight; the front door has answered some."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ThermalGuards(folder / "thermal")
    (folder / "jobs").mkdir()
    places = {"dispatch": "dispatch.sock", "state": "state.json", "thermal": "thermal"}
    words = [w for key, name in places.items() for w in (f"--{key}", str(folder / name))]
    words += ["--jobs", str(folder / "jobs"), "--http", f"127.0.0.1:{port}"]
    door = await ready(folder, RUN, *words)
    home = make_node()
    loop = asyncio.get_running_loop()
    loop.add_reader(home.notify, home.told_so_far)
    settings: dict[str, Any] = {
        "engine": "echo",
        "options": {"return_body": True},
        "dispatch_socket": str(folder / "dispatch.sock"),
        "preprocess_processes": 2,
    }
    answers: asyncio.Queue[int] = asyncio.Queue()
    callers = [asyncio.create_task(keep_asking(port, answers)) for _ in "1234"]
    try:
        async with home.worker(**settings) as worker:
            for _ in range(8):
                assert await asyncio.wait_for(answers.get(), 20) == 200
            yield door, worker
    finally:
        for caller in callers:
            caller.cancel()
        with contextlib.suppress(ProcessLookupError):
            door.kill()
        await door.wait()
        loop.remove_reader(home.notify)
        close_node(home)


async def keep_asking(port: int, answers: asyncio.Queue[int]) -> None:
    body = filling(3 * MIB)
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(HEAD % len(body) + body)
                reply = await read_reply(reader)
                if reply.status == 200:
                    assert reply.body == body
                    answers.put_nowait(reply.status)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("victim", ["front door", "worker", "CPU process"])
async def test_a_kill_under_load_leaves_nothing_in_shared_memory(
    tmp_path: Path, victim: str
) -> None:
    before = shared_memory()
    async with a_busy_node(tmp_path) as (door, worker):
        processes = children_of(worker.pid)
        if victim == "front door":
            door.kill()
            await door.wait()
            for pid in (worker.pid, *processes):
                await until(lambda pid=pid: memfds(pid) == 0, f"{pid} let go of the buffers")
        elif victim == "worker":
            worker.process.kill()
            await worker.ended()
            await until(lambda: not any(map(is_there, processes)), "its CPU processes ended")
            await until(
                lambda: open_files(door.pid, "gpuwarden-result") == 0,
                "what it had borrowed was destroyed",
            )
        else:
            os.kill(processes[0], signal.SIGKILL)
            await until(lambda: processes[0] not in children_of(worker.pid), "it was replaced")
    await until(lambda: shared_memory() <= before, "nothing is left in /dev/shm")


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def results_of(pid: int) -> int:
    return open_files(pid, "gpuwarden-result")
