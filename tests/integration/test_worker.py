import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.worker_peer import (
    LentBuffer,
    Node,
    children_of,
    close_node,
    make_node,
    sha256,
    until,
)


@pytest.fixture
def node() -> Iterator[Node]:
    made = make_node()
    yield made
    close_node(made)


async def test_a_worker_says_hello_while_loading_then_asks_for_two_batches(node: Node) -> None:
    async with node.worker(gpu_uuid="GPU-1", gpu_index=1, model="m") as worker:
        connection = await node.accept()
        assert connection.hello.meta == {
            "protocol": 1,
            "number": 0,
            "pid": worker.pid,
            "state": "loading",
            "scheduling": "batch",
            "max_batch": 2,
            "model": "m",
            "engine": "echo",
            "gpu_uuid": "GPU-1",
            "gpu_index": 1,
        }
        assert (await connection.next_state("ready")).meta == {"state": "ready"}
        assert (await connection.next_of(FrameType.CREDIT)).count == 4


async def test_systemd_hears_loading_then_ready_alone(node: Node) -> None:
    async with node.worker(gpu_index=1):
        connection = await node.accept()
        await node.told_systemd("READY=1")
        assert node.messages[0] == "STATUS=loading echo on GPU 1"
        assert "EXTEND_TIMEOUT_USEC=30000000" in node.messages
        assert node.messages[-1] == "READY=1"
        connection.job(1, b"x")
        await connection.results(1)
        await node.told_systemd("STATUS=ready: 1 answered, 0 running")


async def test_inline_and_lent_bodies_are_answered(node: Node) -> None:
    content = os.urandom(300_000)
    buffer = LentBuffer(7, content)
    async with node.worker():
        connection = await node.accept()
        await connection.next_of(FrameType.CREDIT)
        connection.job(1, b"small", batch=1, count=2, parameters={"p": 1})
        connection.job(2, buffer, batch=1, count=2)
        results = await connection.results(2)
        assert results[1].meta["answer"]["body_sha256"] == sha256(b"small")
        assert results[1].meta["answer"]["parameters"] == {"p": 1}
        assert results[2].meta["answer"]["body_sha256"] == sha256(content)
        assert (results[1].lease, results[2].lease) == (501, 502)
        assert set(results[1].meta["timing"]) == {"preprocess_seconds", "predict_seconds"}
    buffer.close()


async def test_a_sigterm_drains_and_leaves_nothing_behind(node: Node) -> None:
    async with node.worker(preprocess_processes=2) as worker:
        connection = await node.accept()
        await connection.next_of(FrameType.CREDIT)
        children = children_of(worker.pid)
        assert len(children) == 2
        worker.process.send_signal(signal.SIGTERM)
        await connection.next_state("draining")
        frames = await connection.until_closed()
        assert [frame.type for frame in frames] == [FrameType.BYE]
        assert await worker.ended() == 0
        assert "STOPPING=1" in node.told_so_far()
        await until(lambda: not any(map(is_there, children)), "CPU processes are gone")


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
