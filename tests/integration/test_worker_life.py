# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.worker_peer import (
    LentBuffer,
    Node,
    children_of,
    is_running,
    sha256,
    start_worker,
    until,
)


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
            "heartbeat_seconds": 2.0,
            "together": True,
        }
        ready = {"state": "ready", "scheduling": "batch", "batch_mixed": True}
        assert (await connection.next_state("ready")).meta == ready
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


async def test_a_worker_is_not_ready_before_its_cpu_processes_are(node: Node) -> None:
    gate = node.gate("gate")
    options = {"wait_in_prepare": gate.path}
    async with node.worker(engine="model_classes:Scripted", options=options) as worker:
        connection = await node.accept()
        await until(lambda: len(children_of(worker.pid)) == 1, "the CPU process started")
        assert "READY=1" not in node.told_so_far()
        gate.open()
        await connection.next_state("ready")
        await node.told_systemd("READY=1")


async def test_inline_and_lent_bodies_are_answered(node: Node) -> None:
    content = os.urandom(300_000)
    buffer = LentBuffer(7, content)
    async with node.worker():
        connection = await node.accept(answers=False)
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


class TestFailingToStart:
    @pytest.mark.parametrize(
        ("settings", "code", "status"),
        [
            (
                {"options": {"fail_load": True}},
                70,
                "failed: engine echo raised RuntimeError in load(): option fail_load is set: "
                "remove it from [workers.options]. See journalctl -u medgemma-worker@0; after "
                "correcting it: systemctl restart medgemma-worker@0",
            ),
            ({"engine": "ecko"}, 78, "failed: engine ecko cannot be used: engine 'ecko' is"),
            (
                {"engine": "model_classes:Scripted", "options": {"raise_in_prepare": "no disk"}},
                70,
                "failed: engine model_classes:Scripted in a CPU process: raised ValueError in "
                "prepare(): no disk",
            ),
            (
                {"engine_path": ["/not/there"]},
                78,
                "failed: engine echo cannot be used: engine_path",
            ),
        ],
    )
    async def test_status_says_why_and_what_to_do(
        self, node: Node, settings: dict[str, Any], code: int, status: str
    ) -> None:
        async with node.worker(**settings) as worker:
            assert await worker.ended() == code
            assert any(message.startswith("STATUS=" + status) for message in node.told_so_far())
            assert "READY=1" not in node.messages
            assert status.removeprefix("failed: ") in worker.log()

    async def test_the_journal_holds_the_engines_own_traceback(self, node: Node) -> None:
        async with node.worker(options={"fail_load": True}) as worker:
            assert await worker.ended() == 70
            assert 'echo.py", line' in worker.log()
            assert "gpu.py" not in worker.log()
            assert "host.py" not in worker.log()

    async def test_a_load_that_never_ends_is_given_up(self, node: Node) -> None:
        gate = node.gate("gate")
        async with node.worker(
            engine="model_classes:Scripted",
            options={"wait_in_load": gate.path},
            load_timeout_seconds=1,
        ) as worker:
            assert await worker.ended() == 70
            assert "was not loaded within 1 s" in worker.log()

    async def test_settings_that_cannot_be_used_are_named(self, node: Node) -> None:
        process = await start_worker(b'{"engine": 1}', node.folder, {})
        assert await process.wait() == 64
        (message,) = node.told_so_far()
        assert message.startswith("STATUS=failed: settings: key 'number' is missing; engine is 1,")

    async def test_a_term_while_loading_ends_it_at_once(self, node: Node) -> None:
        gate, loading = node.gate("gate"), node.gate("loading")
        options = {"say_in_load": loading.path, "wait_in_load": gate.path}
        async with node.worker(engine="model_classes:Scripted", options=options) as worker:
            await loading.reached()
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.ended() == 0


class TestDraining:
    async def test_what_runs_is_finished_the_rest_returned_and_nothing_is_left(
        self, node: Node
    ) -> None:
        here, go = node.gate("here"), node.gate("go")
        async with node.scripted(preprocess_processes=2) as (worker, connection):
            children = children_of(worker.pid)
            assert len(children) == 2
            on_gpu = {"say_in_predict": here.path, "wait_in_predict": go.path}
            connection.job(1, parameters=on_gpu)
            await here.reached()
            connection.job(2)
            connection.job(3, batch=30, count=2)
            worker.process.send_signal(signal.SIGTERM)
            await connection.next_state("draining")
            returned = await connection.results(2)
            assert {f.meta["error"]["type"] for f in returned.values()} == {"returned"}
            connection.job(4)
            assert (await connection.results(1))[4].meta["error"]["type"] == "returned"
            go.open()
            frames = await connection.until_closed()
            assert [f.type for f in frames] == [FrameType.RESULT, FrameType.BYE]
            assert frames[0].meta["ok"]
            assert await worker.ended() == 0
            assert "STOPPING=1" in node.told_so_far()
            assert not any(map(is_running, children))

    async def test_a_batch_that_takes_longer_is_given_up(self, node: Node) -> None:
        here, never = node.gate("here"), node.gate("never")
        async with node.scripted(drain_seconds=0.5) as (worker, connection):
            connection.job(
                1, parameters={"say_in_predict": here.path, "wait_in_predict": never.path}
            )
            await here.reached()
            worker.process.send_signal(signal.SIGTERM)
            await connection.next_state("draining")
            assert await connection.until_closed() == []  # no BYE: the gateway gives it to another
            assert await worker.ended() == 0
            assert "a batch still runs after 0.5 s of draining" in worker.log()

    async def test_a_drain_by_the_gateway_lasts_for_its_connection(self, node: Node) -> None:
        async with node.scripted() as (worker, connection):
            connection.send(Frame(FrameType.DRAIN))
            await connection.next_of(FrameType.BYE)
            connection.job(1)
            assert (await connection.results(1))[1].meta["error"]["type"] == "returned"
            connection.close()
            again = await node.accept()
            assert again.hello.meta["state"] == "ready"
            assert (await again.next_of(FrameType.CREDIT)).count == 4
            again.job(1)
            assert (await again.results(1))[1].meta["ok"]
            assert is_running(worker.pid)

    async def test_killed_it_takes_its_cpu_processes_along(self, node: Node) -> None:
        async with node.scripted(preprocess_processes=2) as (worker, _):
            children = children_of(worker.pid)
            worker.process.kill()
            await worker.ended()
            await until(lambda: not any(map(is_running, children)), "the CPU processes ended")


class TestReconnecting:
    async def test_a_worker_waits_for_the_gateway_to_come(self, node: Node) -> None:
        path = node.folder / "dispatch.sock"
        hidden = path.rename(node.folder / "hidden")
        async with node.worker() as worker:
            await node.told_systemd("READY=1")
            hidden.rename(path)
            connection = await node.accept()
            assert connection.hello.meta["state"] == "ready"
            assert (await connection.next_of(FrameType.CREDIT)).count == 4
            assert "No such file" in worker.log()

    async def test_a_worker_that_is_turned_away_comes_again(self, node: Node) -> None:
        async with node.worker():
            (await node.accept_silently()).close()
            await (await node.accept()).next_of(FrameType.CREDIT)

    @pytest.mark.parametrize(("instance", "is_sent"), [("run-1", True), ("run-2", False)])
    async def test_a_finished_result_goes_only_to_the_gateway_run_that_asked(
        self, node: Node, instance: str, is_sent: bool
    ) -> None:
        here, go = node.gate("here"), node.gate("go")
        async with node.scripted(welcome={"instance": "run-1"}) as (_, connection):
            connection.job(1, parameters={"say_in_predict": here.path, "wait_in_predict": go.path})
            await here.reached()
            connection.close()
            await node.told_systemd("STATUS=ready: 0 answered, 1 running")
            silent = await node.accept_silently()
            go.open()
            await node.told_systemd("STATUS=ready: 1 answered, 0 running")
            silent.close()
            again = await node.accept(instance=instance)
            await again.next_of(FrameType.CREDIT)
            results = [f for f in again.seen if f.type == FrameType.RESULT]
            assert [(f.request, f.lease) for f in results] == [(1, 501)] * is_sent
            again.job(2)
            assert (await again.results(1))[2].meta["ok"]

    @pytest.mark.parametrize("is_back", [True, False], ids=["gateway back", "gateway away"])
    async def test_a_durable_jobs_result_goes_to_whichever_gateway_comes(
        self, node: Node, is_back: bool
    ) -> None:
        here, go = node.gate("here"), node.gate("go")
        async with node.scripted() as (_, connection):
            gates = {"say_in_predict": here.path, "wait_in_predict": go.path}
            connection.job(1, parameters=gates, ticket="id:1")
            await here.reached()
            connection.close()
            again = await node.accept() if is_back else await node.accept_silently()
            go.open()
            await node.told_systemd("STATUS=ready: 1 answered, 0 running")
            if not is_back:
                again.welcome()
            result = await again.next_of(FrameType.RESULT)
            assert (result.request, result.lease) == (0, 0)
            assert (result.meta["ok"], result.meta["ticket"]) == (True, "id:1")

    async def test_buffers_of_a_lost_connection_are_given_back(self, node: Node) -> None:
        buffer = LentBuffer(4, os.urandom(100_000))
        async with node.scripted() as (worker, connection):
            (child,) = children_of(worker.pid)
            connection.job(1, buffer)
            await connection.results(1)
            connection.close()
            await node.accept()
            maps = Path(f"/proc/{child}/maps")
            await until(lambda: "memfd:body" not in maps.read_text(), "the buffer is unmapped")
        buffer.close()


class TestWatchdog:
    async def test_it_is_fed_by_a_healthy_worker(self, node: Node) -> None:
        async with node.worker(environment={"WATCHDOG_USEC": "200000"}):
            await node.told_systemd("READY=1")
            await node.told_systemd("WATCHDOG=1")
            await node.told_systemd("WATCHDOG=1")

    async def test_it_starves_while_a_batch_is_past_its_time(self, node: Node) -> None:
        go = node.gate("go")
        async with node.scripted(
            environment={"WATCHDOG_USEC": "200000"}, execution_timeout_seconds=0.5
        ) as (worker, connection):
            await node.told_systemd("WATCHDOG=1")
            connection.job(1, parameters={"wait_in_predict": go.path})
            stuck = await connection.next_state("ready")
            assert stuck.meta["error"] == "stuck: a batch runs for over 0.5 s"
            node.told_so_far()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(node.told_systemd("WATCHDOG=1"), 0.6)  # six periods
            assert "model_classes.py" in worker.log()  # where it hangs
            go.open()
            assert "error" not in (await connection.next_state("ready")).meta
            await node.told_systemd("WATCHDOG=1")


class SimulatedCard:
    """The attach socket of a simulated card."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while line := await reader.readline():
            self.lines.put_nowait(json.loads(line))
            writer.write(json.dumps(self.answer).encode() + b"\n")
        writer.close()

    async def next_line(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.lines.get(), 30)


class TestSimulatedCard:
    async def test_a_worker_holds_memory_and_heats_the_card_while_it_predicts(
        self, node: Node
    ) -> None:
        card, here, go = SimulatedCard({"ok": True}), node.gate("here"), node.gate("go")
        path = str(node.folder / "attach.sock")
        async with (
            await asyncio.start_unix_server(card.serve, path),
            node.scripted(gpu_uuid="GPU-1", simulator_socket=path) as (_, connection),
        ):
            attach = {"uuid": "GPU-1", "vram_bytes": 1000, "load": 0.0}
            assert await card.next_line() == attach
            connection.job(1, parameters={"say_in_predict": here.path, "wait_in_predict": go.path})
            await here.reached()
            assert await card.next_line() == {"load": 0.9}
            go.open()
            assert await card.next_line() == {"load": 0.0}
            memory = [f.meta for f in connection.seen if f.type == FrameType.MEMORY]
            assert memory == [{"vram_reserved_bytes": 1000, "vram_allocated_bytes": 1000}]

    async def test_a_lost_context_is_told_and_requests_go_on(self, node: Node) -> None:
        card = SimulatedCard({"ok": True})
        path = str(node.folder / "attach.sock")
        async with (
            await asyncio.start_unix_server(card.serve, path),
            node.scripted(gpu_uuid="GPU-1", simulator_socket=path) as (_, connection),
        ):
            card.writers[0].close()
            state = await connection.next_state("ready")
            assert state.meta["error"].startswith("GPU context lost")
            connection.job(1)
            assert (await connection.results(1))[1].meta["ok"]

    async def test_a_card_that_refuses_is_told(self, node: Node) -> None:
        card = SimulatedCard({"ok": False, "error": "no room for 1000 bytes"})
        path = str(node.folder / "attach.sock")
        async with (
            await asyncio.start_unix_server(card.serve, path),
            node.worker(gpu_uuid="GPU-1", simulator_socket=path) as worker,
        ):
            assert await worker.ended() == 69
            assert "got no GPU: simulated card GPU-1: no room for 1000 bytes" in worker.log()
