# SPDX-License-Identifier: Apache-2.0
"""A hot card at the front door: the guards' states lie there, everything else follows."""

import asyncio
import itertools
import logging
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control.snapshot import boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import GatewayData
from gpuwarden.gateway import heatwatch
from gpuwarden.gateway.work import CardLimits, Seat
from gpuwarden.systemd.events import Event
from gpuwarden.worker.frames import FrameType
from tests.integration.gateway_node import (
    DEADLINE_SECONDS,
    GatewayNode,
    ThermalGuards,
    gateway_node,
)
from tests.integration.gateway_peer import GatewayPeer
from tests.integration.gateway_process import predict, ready_by_hand
from tests.integration.real_worker import openai_client
from tests.waiting import seconds_at_best

EFFECT_SECONDS = 1.0  # from a guard's word to what its card's workers are given


async def until_limits(node: GatewayNode, limits: dict[int, int]) -> None:
    await node.until(lambda: node.snapshot().batch_limits == limits)


async def until_paused(node: GatewayNode, *cards: int) -> None:
    of = node.service.dispatcher.queue.cards
    await node.until(lambda: all(of[card].limits.paused for card in cards))


async def batch_sizes(node: GatewayNode, worker: GatewayPeer, requests: int) -> set[int]:
    """How large the batches are that a worker gets under load."""
    posted = [asyncio.create_task(node.post(b"image")) for _ in range(requests)]
    await node.until(lambda: len(node.service.dispatcher.queue.requests) == requests)
    sizes: Counter[int] = Counter()
    for _ in posted:
        job = await worker.next_job()
        sizes[job.frame.batch] += 1
        assert job.frame.count >= sizes[job.frame.batch]
        worker.answer(job)
    assert {reply.status for reply in await asyncio.gather(*posted)} == {200}
    return set(sizes.values())


def heat_events(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    told = [getattr(record, "fields", {}) for record in caplog.records]
    return [one for one in told if one.get("GPUWARDEN_EVENT") == Event.GATEWAY_HEAT.label]


async def test_a_cards_batches_shrink_and_grow_with_its_batch_limit() -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False, max_batch=4)
        await until_limits(node, {0: 4})
        node.guards.publish(0, state="alert", batch_limit=2)
        await until_limits(node, {0: 2})
        limit = await worker.next_frame()
        assert limit.type == FrameType.LIMIT
        assert limit.meta == {"batch_limit": 2, "thermal_state": "alert"}
        assert max(await batch_sizes(node, worker, 10)) == 2
        node.guards.publish(0)
        await until_limits(node, {0: 4})
        assert (await worker.next_frame()).meta == {"batch_limit": 4, "thermal_state": "normal"}
        assert max(await batch_sizes(node, worker, 10)) == 4


@pytest.mark.parametrize(
    "hot",
    [{"batch_limit": 2}, {"dispatch_duty": 0.5}, {"admission": "paused"}],
)
async def test_what_a_guard_asks_for_holds_within_a_second(hot: dict[str, Any]) -> None:
    async with gateway_node() as node:
        await node.worker(max_batch=4)
        await until_limits(node, {0: 4})
        cards = node.service.dispatcher.queue.cards
        asked_for = itertools.cycle((hot, {}))

        async def has_effect() -> None:
            before = cards[0].limits
            node.guards.publish(0, state="alert", **next(asked_for))
            await node.until(lambda: cards[0].limits != before)

        for _ in ("to this", "and back"):
            assert await seconds_at_best(has_effect, EFFECT_SECONDS) < EFFECT_SECONDS


async def test_a_state_of_three_seconds_ago_counts_as_none_until_a_fresh_one_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    age_seconds = 0.0
    monkeypatch.setattr(
        heatwatch, "boottime_nanoseconds", lambda: boottime_nanoseconds() + int(age_seconds * 1e9)
    )
    async with gateway_node() as node:
        node.guards.publish(0, batch_limit=3, dispatch_duty=0.9, valid_milliseconds=3000)
        await node.worker(max_batch=4)
        limits = node.service.dispatcher.queue.cards
        assert limits[0].limits == CardLimits(3, 0.9)
        age_seconds = 3.1
        await node.until(lambda: limits[0].limits == CardLimits(1, 0.9))
        age_seconds = 0.0
        node.guards.publish(0, batch_limit=4, valid_milliseconds=3000)
        await node.until(lambda: limits[0].limits == CardLimits(4))


async def test_a_limit_beyond_what_a_worker_takes_changes_nothing() -> None:
    async with gateway_node() as node:
        node.guards.publish(0, batch_limit=16)
        worker = await node.worker(auto=False, max_batch=4)
        await until_limits(node, {0: 4})
        assert worker.frames.empty()
        assert max(await batch_sizes(node, worker, 10)) == 4


async def work_until_it_owes_rest(node: GatewayNode, worker: GatewayPeer) -> None:
    """Answer one request, after so long that its card has to rest now."""
    job = await worker.next_job()
    queue, now = node.service.dispatcher.queue, asyncio.get_running_loop().time
    await node.until(lambda: not queue.cards[0].takes(Seat(99, 0, 1), now()))
    worker.answer(job, timing={})


async def test_a_card_that_owes_rest_is_given_nothing() -> None:
    async with gateway_node() as node:
        node.guards.publish(0, state="alert", dispatch_duty=0.0001)  # minutes for a moment's work
        worker = await node.worker(auto=False, max_batch=1)
        posted = [asyncio.create_task(node.post(b"image")) for _ in range(2)]
        await work_until_it_owes_rest(node, worker)
        await asyncio.wait(posted, return_when=asyncio.FIRST_COMPLETED)
        assert node.service.dispatcher.queue.depth == 1
        assert worker.jobs.empty()
        node.guards.publish(0)
        worker.answer(await worker.next_job())
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


async def test_a_card_that_has_rested_goes_on_by_itself() -> None:
    async with gateway_node() as node:
        node.guards.publish(0, state="alert", dispatch_duty=0.5)
        worker = await node.worker(auto=False, max_batch=1)
        posted = [asyncio.create_task(node.post(b"image")) for _ in range(3)]
        for _ in posted:
            await work_until_it_owes_rest(node, worker)
        assert {reply.status for reply in await asyncio.gather(*posted)} == {200}


@pytest.mark.parametrize("hot", [{"admission": "paused"}, {"stop_requested": True}])
async def test_the_cooler_card_takes_over_what_a_paused_one_has_not_begun(
    hot: dict[str, Any],
) -> None:
    async with gateway_node() as node:
        first = await node.worker(0, auto=False, max_batch=1)
        posted = [asyncio.create_task(node.post(b"image")) for _ in range(2)]
        running, prepared = await first.next_job(), await first.next_job()
        second = await node.worker(1)
        node.guards.publish(0, state="critical", **hot)
        await until_paused(node, 0)
        told, cancel = [await first.next_frame() for _ in range(2)]
        assert told.meta["thermal_state"] == "critical"
        assert (cancel.type, cancel.lease) == (FrameType.CANCEL, prepared.frame.lease)
        first.fail(prepared, "cancelled")
        first.answer(running)
        assert sorted([(await one).json["worker"] for one in posted]) == [0, 1]
        for _ in range(3):
            assert (await node.post(b"image")).json["worker"] == 1
        assert first.jobs.empty()
        second.close()
        node.guards.publish(0)
        first.answers_by_itself = True
        assert (await node.post(b"cool again")).json["worker"] == 0


async def test_a_stream_goes_on_that_passed_an_older_request_before_its_card_was_paused() -> None:
    async with gateway_node() as node, openai_client(node) as client:
        worker = await node.worker(0, auto=False, max_batch=1)
        older = asyncio.create_task(node.post(b"image"))
        large = await worker.next_job()
        streaming = asyncio.create_task(
            client.chat.completions.create(
                model="imagestats", messages=[{"role": "user", "content": "?"}], stream=True
            )
        )
        small = await worker.next_job()
        worker.tell(small, "Clear ")
        stream = await streaming
        node.guards.publish(0, state="critical", admission="paused")
        await until_paused(node, 0)
        worker.tell(small, "lungs.")
        worker.answer(small, answer={"text": "Clear lungs.", "finish_reason": "stop"})
        worker.answer(large)
        told = [choice async for chunk in stream for choice in chunk.choices]
        assert "".join(choice.delta.content or "" for choice in told) == "Clear lungs."
        assert told[-1].finish_reason == "stop"
        assert (await older).status == 200


async def test_where_all_cards_are_too_hot_the_front_door_says_so_and_what_waits_goes_on() -> None:
    async with gateway_node(grace_seconds=0) as node:
        await node.worker(0)
        await node.worker(1)
        node.guards.publish(0, state="critical", admission="paused")
        await until_paused(node, 0)
        assert (await node.get("/readyz")).json["workers_ready"] == 1
        body = asyncio.Event()
        waits = asyncio.create_task(post_slowly(node, body))
        await node.until(lambda: node.service.dispatcher.queue.depth == 1)
        node.guards.publish(1, state="critical", admission="paused")
        await until_paused(node, 1)
        body.set()
        reply = await node.post(b"image")
        assert (reply.status, reply.error) == (503, "too_hot")
        assert "too hot" in reply.json["error"]["message"]
        assert reply.headers["retry-after"] == "30"
        readiness = await node.get("/readyz")
        assert readiness.status == 503
        assert "worker 1 is ready, but GPU 1 is too hot" in readiness.json["reasons"]
        assert not waits.done()
        node.guards.publish(1, state="recovering", batch_limit=1)
        assert await waits == 200


async def post_slowly(node: GatewayNode, body: asyncio.Event) -> int:
    """A request that is accepted now, and complete only when ``body`` is set."""
    reader, writer = await node.connect()
    writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n")
    await body.wait()
    writer.write(b"abc")
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_what_waits_for_a_hot_card_waits_no_longer_than_it_may() -> None:
    async with gateway_node(request_timeout_seconds=0.3) as node:
        node.guards.publish(0, state="critical", admission="paused")
        await node.worker()
        reply = await node.post(b"image")
        assert (reply.status, reply.error) == (503, "queue_timeout")
        assert "too hot" in reply.json["error"]["message"]


async def test_a_silent_guard_means_eco_until_it_speaks_again_and_both_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with gateway_node() as node:
        await node.worker(max_batch=4)
        await until_limits(node, {0: 4})
        assert heat_events(caplog) == []
        node.guards.publish(0, batch_limit=3, dispatch_duty=0.9, valid_milliseconds=100)
        await until_limits(node, {0: 1})
        assert node.service.dispatcher.queue.cards[0].limits.duty == 0.9
        assert (await node.post(b"image")).status == 200
        node.guards.vanish(0)
        node.guards.publish(0, reason="all is well")
        await until_limits(node, {0: 4})
        lost, back = heat_events(caplog)[-2:]
        assert (lost["GPU"], lost["BATCH_LIMIT"], lost["DISPATCH_DUTY"]) == ("0", "1", "0.9")
        assert "nothing for over 0.1 s" in lost["REASON"]
        assert (back["BATCH_LIMIT"], back["REASON"]) == ("", "normal: all is well")
        levels = {record.levelno for record in caplog.records if "GPU 0: at most 1" in record.msg}
        assert levels == {logging.WARNING}


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"schema": 1}', b"[]", b"\xff\xfe"])
async def test_a_card_without_a_guards_state_is_served_one_request_at_a_time(
    content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_node() as node:
        node.guards.vanish(0)
        if content is not None:
            node.guards.file_of(0).write_bytes(content)
        worker = await node.worker(auto=False, max_batch=4)
        await until_limits(node, {0: 1})
        assert await batch_sizes(node, worker, 6) == {1}
        (event,) = heat_events(caplog)
        assert "0.json" in event["REASON"]


async def test_one_cards_trouble_is_not_its_neighbours() -> None:
    async with gateway_node() as node:
        await node.worker(0, max_batch=4)
        await node.worker(1, max_batch=4)
        node.guards.vanish(0)
        await until_limits(node, {0: 1, 1: 4})
        node.guards.publish(1, batch_limit=2)
        await until_limits(node, {0: 1, 1: 2})


async def test_the_process_itself_goes_by_the_files(tmp_path: Path) -> None:
    guards = ThermalGuards(tmp_path / "thermal")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ("--thermal", str(guards.folder))
    async with ready_by_hand(tmp_path, port, *arguments) as state_path:
        worker = GatewayPeer(tmp_path / "dispatch.sock", 2)
        worker.answers_by_itself = True
        await worker.become_ready()
        assert await predict(port) == 200
        guards.publish(2, state="critical", batch_limit=1, reason="die 86 C")
        limit = await worker.next_frame()
        assert limit.type == FrameType.LIMIT
        assert limit.meta == {"batch_limit": 1, "thermal_state": "critical"}
        assert await predict(port) == 200
        async with asyncio.timeout(DEADLINE_SECONDS):
            while read_snapshot(state_path, GatewayData).data.batch_limits != {2: 1}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert "GPU 2: at most 1 together; critical: die 86 C" in (tmp_path / "log").read_text()
        worker.close()
