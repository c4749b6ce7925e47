# SPDX-License-Identifier: Apache-2.0
"""A worker whose requests join and leave between the steps of its engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gpuwarden.worker.frames import Frame, FrameType
from gpuwarden.worker.loading import EXIT_NO_GPU
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node
from tests.integration.real_worker import openai_client, real_worker
from tests.integration.worker_peer import Connection, Node, Worker

ENGINE = "model_classes:Stepping"


def body(**wanted: Any) -> bytes:
    return json.dumps(wanted).encode()


@asynccontextmanager
async def stepping(node: Node, **settings: Any) -> AsyncIterator[tuple[Worker, Connection]]:
    async with node.worker(engine=ENGINE, **settings) as worker:
        connection = await node.accept()
        await connection.next_of(FrameType.CREDIT)
        yield worker, connection


async def test_it_says_slots_and_asks_for_as_many_requests_and_two_to_prepare(node: Node) -> None:
    async with node.worker(engine=ENGINE, max_batch=3):
        connection = await node.accept()
        ready = await connection.next_state("ready")
        assert (ready.meta["scheduling"], ready.meta["batch_pixels"]) == ("slots", 1_000_000)
        assert (await connection.next_of(FrameType.CREDIT)).count == 5
        connection.close()
        again = await node.accept()
        assert again.hello.meta["scheduling"] == "slots"


ENDLESS = 1_000_000_000


@asynccontextmanager
async def held_between_steps(node: Node, connection: Connection) -> AsyncIterator[None]:
    """Request 1 is in a slot for ever, and goes on a step whenever the test has its turn."""
    in_step, go_on = node.gate("in_step"), node.gate("go_on")
    gates = {"say_in_step": in_step.path, "wait_in_step": go_on.path}
    connection.job(1, body(steps=ENDLESS, **gates))
    await in_step.reached()

    async def step_on() -> None:
        while True:
            go_on.open()
            await in_step.reached()

    stepping_on = asyncio.create_task(step_on())
    try:
        yield
    finally:
        stepping_on.cancel()
        go_on.open()


async def test_a_request_joins_between_the_steps_of_another_and_leaves_before_it(
    node: Node,
) -> None:
    async with stepping(node) as (_, connection), held_between_steps(node, connection):
        connection.job(2, body(steps=3))
        assert (await connection.results(1))[2].meta["answer"] == {"slot": 1, "most": 2}
        connection.send(Frame(FrameType.CANCEL, 1, 501))
        assert (await connection.results(1))[1].meta["error"]["type"] == "cancelled"
        told = [(frame.request, frame.meta["joining"]) for frame in joinings(connection)]
        assert told == [(1, True), (1, False), (2, True), (2, False)]


def joinings(connection: Connection) -> list[Frame]:
    return [frame for frame in connection.seen if frame.type == FrameType.JOINING]


async def test_a_lower_limit_gives_no_new_slot_and_lets_those_that_run_finish(node: Node) -> None:
    in_step, go_on = node.gate("in_step"), node.gate("go_on")
    async with stepping(node, max_batch=2) as (_, connection):
        connection.job(1, body(say_in_step=in_step.path, wait_in_step=go_on.path))
        await in_step.reached()
        connection.send(Frame(FrameType.LIMIT, meta={"batch_limit": 1}))
        connection.job(2, body())
        connection.job(3, body())
        go_on.open()
        results = await connection.results(3)
        assert [results[n].meta["answer"]["most"] for n in (1, 2, 3)] == [1, 1, 1]


async def test_whose_caller_leaves_gives_its_slot_to_the_next(node: Node) -> None:
    async with (
        stepping(node, max_batch=1) as (_, connection),
        held_between_steps(node, connection),
    ):
        connection.job(2, body())
        connection.send(Frame(FrameType.CANCEL, 1, 501))
        first, second = [await connection.next_of(FrameType.RESULT) for _ in range(2)]
        assert (first.request, first.meta["error"]["type"]) == (1, "cancelled")
        assert (second.request, second.meta["answer"]) == (2, {"slot": 0, "most": 1})


async def test_whose_gateway_has_died_gives_its_slot_to_the_next(node: Node) -> None:
    async with (
        stepping(node, max_batch=1) as (_, connection),
        held_between_steps(node, connection),
    ):
        connection.close()
        again = await node.accept()
        await again.next_of(FrameType.CREDIT)
        again.job(2, body())
        assert (await again.results(1))[2].meta["answer"] == {"slot": 0, "most": 1}


async def test_who_can_not_be_taken_in_fails_alone(node: Node) -> None:
    async with stepping(node) as (worker, connection):
        connection.job(1, body(raise_in_join="Jane Roe"))
        connection.job(2, body())
        results = await connection.results(2)
        assert results[1].meta["error"]["type"] == "engine_error"
        assert results[2].meta["ok"]
    assert "Jane Roe" not in worker.log()


async def test_a_step_that_fails_frees_every_slot_and_the_next_requests_are_answered(
    node: Node,
) -> None:
    async with stepping(node) as (worker, connection):
        async with held_between_steps(node, connection):
            connection.job(2, body(steps=ENDLESS, raise_in_step="Jane Roe"))
            results = await connection.results(2)
        assert {one.meta["error"]["type"] for one in results.values()} == {"engine_error"}
        connection.job(3, body())
        assert (await connection.results(1))[3].meta["answer"]["most"] == 1
    assert "Jane Roe" not in worker.log()


async def test_a_drained_worker_finishes_what_has_a_slot_and_returns_the_rest(node: Node) -> None:
    async with stepping(node, max_batch=1) as (worker, connection):
        in_step, go_on = node.gate("in_step"), node.gate("go_on")
        connection.job(1, body(say_in_step=in_step.path, wait_in_step=go_on.path))
        await in_step.reached()
        connection.job(2, body())
        worker.process.terminate()
        returned = await connection.next_of(FrameType.RESULT)
        assert (returned.request, returned.meta["error"]["type"]) == (2, "returned")
        go_on.open()
        assert (await connection.results(1))[1].meta["ok"]
        await connection.next_of(FrameType.BYE)
        assert await worker.ended() == 0


async def test_those_who_stream_get_their_own_pieces_step_by_step() -> None:
    async with gateway_node() as node, stepping_worker(node), openai_client(node) as client:

        async def said(piece: str, steps: int) -> str:
            question = json.dumps({"steps": steps, "piece": piece})
            stream = await client.chat.completions.create(
                model="test-model", messages=[{"role": "user", "content": question}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        wanted = {"a": 40, "b": 7, "c": 1}
        heard = await asyncio.gather(*(said(piece, steps) for piece, steps in wanted.items()))
        assert heard == [piece * steps for piece, steps in wanted.items()]


async def test_a_request_that_kills_at_its_prefill_costs_its_neighbours_no_attempt() -> None:
    poison = body(die_in_join=True)
    async with gateway_node() as node:
        posted: list[asyncio.Task[Reply]] = []
        for death in range(3):
            async with stepping_worker(node) as worker:
                if death == 0:
                    posted = [asyncio.create_task(node.post(one)) for one in (body(), poison)]
                await worker.ended()
                await node.until(lambda: not node.service.dispatcher.links)
            suspects = list(node.service.dispatcher.queue.requests.values())
            assert all(one.suspect == (one.solo_deaths > 0) for one in suspects)
        assert [(await one).status for one in posted] == [200, 500]
        async with stepping_worker(node):
            assert (await node.post(poison)).error == "worker_crashed"
            assert (await node.post(body())).json["answer"]["most"] == 1


@asynccontextmanager
async def stepping_worker(node: GatewayNode) -> AsyncIterator[Worker]:
    async with real_worker(node, engine=ENGINE, max_batch=2) as worker:
        yield worker


@pytest.mark.parametrize("stage", ["join", "step", "leave"])
async def test_a_worker_whose_context_is_gone_ends_at_once_and_says_so(
    node: Node, stage: str
) -> None:
    async with stepping(node) as (worker, connection):
        connection.job(1, body(**{f"break_card_in_{stage}": True}))
        assert await worker.ended() == EXIT_NO_GPU
        frames = await connection.until_closed()
        assert FrameType.RESULT not in {frame.type for frame in frames}
    status = await node.told_systemd("STATUS=failed: the context on the card is gone")
    assert "AcceleratorError" in status


async def test_a_batch_whose_context_is_gone_ends_its_worker_too(node: Node) -> None:
    async with node.scripted() as (worker, connection):
        connection.job(1, parameters={"break_card_in_predict": True})
        assert await worker.ended() == EXIT_NO_GPU
