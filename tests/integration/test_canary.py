# SPDX-License-Identifier: Apache-2.0
"""The canary's whole way: control socket, front door, a real worker, its card, and back."""

import asyncio
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control.requests import CanaryAnswer
from gpuwarden.control.socket import ControlError, ask_async
from gpuwarden.gateway import probe
from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import real_worker
from tests.integration.simulation import Node as SimulatedNode
from tests.integration.simulation import uuid_of
from tests.integration.worker_peer import close_node, make_node

ASK_SECONDS = 10.0


@asynccontextmanager
async def front_door(**settings: Any) -> AsyncIterator[tuple[GatewayNode, Path]]:
    """A front door and its control socket."""
    with tempfile.TemporaryDirectory(prefix="canary-") as name:
        path = Path(name) / "gateway.sock"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(str(path))
        listening.listen()
        async with gateway_node(control=[listening], **settings) as node:
            yield node, path


async def canary(path: Path, number: int = 0) -> CanaryAnswer:
    request = {"request": "canary", "number": number}
    return CanaryAnswer.model_validate(await ask_async(path, request, ASK_SECONDS))


async def canary_in(path: Path, engine: str, node: GatewayNode) -> CanaryAnswer:
    async with real_worker(node, engine=f"model_classes:{engine}") as worker:
        answer = await canary(path)
        assert answer.pid == worker.pid
        return answer


async def test_a_worker_asks_its_card_and_says_what_came_of_it() -> None:
    async with front_door() as (node, path):
        assert (await canary_in(path, "Answering", node)).outcome == "answered"
        lost = await canary_in(path, "Lost", node)
        assert lost.outcome == "lost"
        assert "RuntimeError" in lost.detail
        assert "secret" not in lost.detail


async def test_an_engine_that_uses_no_card_has_no_context_to_lose() -> None:
    async with front_door() as (node, path), real_worker(node, gpu_uuid="GPU-1", gpu_index=0):
        assert (await canary(path)).outcome == "unused"


async def test_a_worker_at_work_is_busy_and_not_lost() -> None:
    home = make_node()
    announced, hold = home.gate("predicting"), home.gate("hold")
    options = {"announce": announced.path, "hold": hold.path}
    engine = "model_classes:Announcing"
    async with front_door() as (node, path), real_worker(node, engine=engine, options=options):
        posted = asyncio.create_task(node.post(b"x"))
        await announced.reached()
        assert (await canary(path)).outcome == "busy"
        hold.open()
        assert (await posted).status == 200
        assert (await canary(path)).outcome == "unused"
    close_node(home)


async def test_a_simulated_context_is_lost_when_the_simulator_ends_it(
    simulated: SimulatedNode,
) -> None:
    attach = str(simulated.directory / "attach.sock")
    settings: dict[str, Any] = {"gpu_uuid": uuid_of(simulated), "simulator_socket": attach}
    async with front_door() as (node, path), real_worker(node, gpu_index=0, **settings):
        assert (await canary(path)).outcome == "answered"
        simulated.sim("fault", "--gpu", "0", "context-lost")
        (link,) = node.service.dispatcher.links.values()
        await node.until(lambda: "context lost" in link.tally.last_error)
        assert (await canary(path)).outcome == "lost"
        assert (await node.post(b"x")).status == 200  # the port answers for all that


async def test_a_worker_of_an_older_protocol_is_silent_and_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "ANSWER_SECONDS", 0.05)
    async with front_door() as (node, path):
        await node.worker(0)
        assert (await canary(path)).outcome == "silent"
        await node.until(lambda: len(node.snapshot().workers) == 1)
        assert node.snapshot().workers[0].silent_seconds is None  # it promised no heartbeat


async def test_a_worker_that_leaves_while_it_is_asked_is_silent_at_once() -> None:
    async with front_door() as (node, path):
        peer = await node.worker(0)
        asked = asyncio.create_task(canary(path))
        frame = await peer.next_frame()
        while frame.type != FrameType.PROBE:
            frame = await peer.next_frame()
        peer.close()
        assert (await asked).outcome == "silent"


async def test_a_late_answer_and_one_to_no_question_change_nothing() -> None:
    async with front_door() as (node, _):
        peer = await node.worker(0)
        peer.send(Frame(FrameType.PROBED, 99, meta={"outcome": "lost"}))
        peer.send(Frame(FrameType.HEARTBEAT))
        assert (await node.post(b"x")).status == 200


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"request": "canary", "number": 7}, "Unavailable"),
        ({"request": "canary"}, "InvalidArgument"),
        ({"request": "canary", "number": "0"}, "InvalidArgument"),
        ({"request": "canary", "number": -1}, "InvalidArgument"),
    ],
)
async def test_a_question_about_no_worker_is_refused(request_: dict[str, Any], kind: str) -> None:
    async with front_door() as (node, path):
        await node.worker(0)
        with pytest.raises(ControlError) as refused:
            await ask_async(path, request_, ASK_SECONDS)
        assert refused.value.kind == kind


async def test_a_real_worker_is_heard_of_every_two_seconds() -> None:
    async with front_door() as (node, _), real_worker(node):
        (link,) = node.service.dispatcher.links.values()
        silent: dict[int, float | None] = {}
        take = link._on_frame

        def noted(frame: Frame) -> None:
            take(frame)
            silent[frame.type] = link.silent_seconds

        link._on_frame = noted  # type: ignore[method-assign]  # to see what has no effect
        await node.until(lambda: FrameType.HEARTBEAT in silent)
        seconds = silent[FrameType.HEARTBEAT]
        assert seconds is not None
        assert seconds < 1


async def test_a_worker_whose_loop_stands_still_falls_silent_and_that_is_published() -> None:
    async with front_door() as (node, path), real_worker(node) as worker:
        await node.until(lambda: bool(node.snapshot().workers))
        worker.process.send_signal(signal.SIGSTOP)
        beats_missed = 2.5  # seconds: one beat and a half
        await node.until(lambda: (node.snapshot().workers[0].silent_seconds or 0) > beats_missed)
        assert (await canary(path)).outcome == "silent"
        worker.process.send_signal(signal.SIGCONT)
        await node.until(lambda: (node.snapshot().workers[0].silent_seconds or 0) < 1)


async def test_a_batch_that_does_not_end_is_published_as_stalled_while_the_loop_is_heard() -> None:
    home = make_node()
    announced, hold = home.gate("predicting"), home.gate("hold")
    options = {"announce": announced.path, "hold": hold.path}
    engine = "model_classes:Announcing"
    async with (
        front_door(execution_timeout_seconds=0.3) as (node, _),
        real_worker(node, engine=engine, options=options),
    ):
        assert (await node.post(b"x")).error == "execution_timeout"
        await node.until(lambda: bool(node.snapshot().workers))
        await node.until(lambda: node.snapshot().workers[0].stalled)
        await node.until(lambda: (node.snapshot().workers[0].silent_seconds or 0) < 3)
        hold.open()
        await node.until(lambda: not node.snapshot().workers[0].stalled)
    close_node(home)
