# SPDX-License-Identifier: Apache-2.0
"""A worker whose card runs full: it is told, remedied, and costs nobody more than need be."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gpuwarden.control.memory import MemoryHistory
from gpuwarden.control.snapshot import read_snapshot
from gpuwarden.gateway.relief import Step
from gpuwarden.worker.frames import FrameType
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import real_worker
from tests.integration.test_gateway_memory import has_heard
from tests.integration.test_gateway_metrics import figures
from tests.integration.worker_peer import Node, Worker

OFTEN = {"monitor_interval": 0.05}


def body(**wanted: Any) -> bytes:
    return json.dumps(wanted).encode()


@asynccontextmanager
async def hoarding(
    *, engine: str = "Hoarding", max_batch: int = 4, **options: Any
) -> AsyncIterator[tuple[GatewayNode, Worker]]:
    async with (
        gateway_node() as node,
        real_worker(
            node,
            engine=f"model_classes:{engine}",
            max_batch=max_batch,
            options={**OFTEN, **options},
        ) as worker,
    ):
        yield node, worker


def link_of(node: GatewayNode) -> Any:
    return next(iter(node.service.dispatcher.links.values()))


async def test_what_an_allocator_says_is_told_to_prometheus_and_published() -> None:
    async with hoarding() as (node, _):
        assert (await node.post(body(takes=700, leaves=100))).status == 200
        await node.until(lambda: has_heard(node, 100))
        seen = await figures(node)
        held = {
            kind: seen[f"worker_vram_bytes{{gpu=0,kind={kind},worker=0}}"]
            for kind in ("reserved", "allocated", "peak", "inactive_split", "limit")
        }
        assert held == {
            "reserved": 100,
            "allocated": 0,
            "peak": 700,
            "inactive_split": 50,
            "limit": 1000,
        }
        assert seen["worker_device_allocs_total{gpu=0,worker=0}"] == 1
        assert seen["worker_alloc_retries_total{gpu=0,worker=0}"] == 0
        assert seen["worker_out_of_memory_total{alone=true,gpu=0,worker=0}"] == 0
        await node.until(lambda: any(w.vram_reserved_bytes == 100 for w in node.snapshot().workers))
        (published,) = node.snapshot().workers
        assert published.vram is not None
        assert (published.vram_reserved_bytes, published.vram.peak_bytes) == (100, 700)
        history = read_snapshot(node.state_path.with_name("memory.json"), MemoryHistory)
        (series,) = history.data.workers
        assert (series.number, len(series.unix_seconds)) == (0, len(series.reserved_bytes))


async def test_over_the_threshold_caches_are_dropped_between_two_batches() -> None:
    async with hoarding() as (node, _):
        await node.post(body(leaves=850))
        await node.until(lambda: link_of(node).relief.step is Step.CACHES)
        await node.until(lambda: has_heard(node, 0))
        assert (await node.post(body())).json["answer"]["drops"] == 1
        assert (await figures(node))["worker_memory_remedy{gpu=0,worker=0}"] == 1


async def test_below_the_threshold_nothing_is_done() -> None:
    async with hoarding(warning_threshold=0.9) as (node, _):
        await node.post(body(leaves=850))
        await node.until(lambda: has_heard(node, 850))
        assert link_of(node).relief.step is Step.NONE


async def test_a_batch_without_memory_is_retried_by_halves_and_the_next_are_smaller() -> None:
    async with hoarding() as (node, worker):
        held = node.service.dispatcher.queue.cards
        posted = [asyncio.create_task(node.post(body(takes=300))) for _ in range(12)]
        replies = await asyncio.gather(*posted)
        assert [reply.status for reply in replies] == [200] * 12
        together = {reply.json["answer"]["together"] for reply in replies}
        assert together <= {1, 2, 3}  # three have room; they were sent before it was known
        await node.until(lambda: link_of(node).seat.ceiling == 2)
        replies = await asyncio.gather(*(node.post(body(takes=300)) for _ in range(6)))
        assert {reply.json["answer"]["together"] for reply in replies} <= {1, 2}
        assert held[0].batch_size(link_of(node).seat) == 2
        assert worker.process.returncode is None
        assert (await figures(node))["worker_out_of_memory_total{alone=false,gpu=0,worker=0}"] >= 1


async def test_a_request_that_is_too_large_by_itself_gets_an_error_and_the_worker_lives() -> None:
    async with hoarding() as (node, worker):
        replies = await asyncio.gather(
            node.post(body(takes=1001)), *(node.post(body(takes=300)) for _ in range(3))
        )
        assert [reply.status for reply in replies] == [507, 200, 200, 200]
        assert replies[0].error == "out_of_memory"
        assert "smaller image" in replies[0].json["error"]["message"]
        assert (await node.post(body(takes=1000))).status == 200
        assert link_of(node).peer.pid == worker.pid
        assert "Jane Roe" not in worker.log()


async def test_caches_are_dropped_before_a_request_is_given_up() -> None:
    async with hoarding(warning_threshold=1) as (node, _):
        await node.post(body(leaves=900))
        assert (await node.post(body(takes=500))).json["answer"] == {"together": 1, "drops": 1}


async def test_with_slots_who_runs_out_of_memory_joins_again_beside_fewer() -> None:
    async with hoarding(engine="HoardingSteps") as (node, worker):
        wanted = [body(steps=40, takes=300) for _ in range(8)]
        replies = await asyncio.gather(*(node.post(one) for one in wanted))
        assert [reply.status for reply in replies] == [200] * 8
        assert max(reply.json["answer"]["most"] for reply in replies) <= 3
        assert worker.process.returncode is None


async def test_with_slots_a_step_that_runs_out_of_memory_costs_nobody_its_answer() -> None:
    async with hoarding(engine="HoardingSteps") as (node, worker):
        wanted = [body(steps=10, takes=100, grows=25) for _ in range(4)]
        replies = await asyncio.gather(*(node.post(one) for one in wanted))
        assert [reply.status for reply in replies] == [200] * 4
        assert (await node.post(body(steps=10, grows=101))).error == "out_of_memory"
        assert (await node.post(body(takes=1000))).status == 200
        assert worker.process.returncode is None


async def test_an_older_worker_or_gateway_is_not_troubled(node: Node) -> None:
    async with node.worker(engine="model_classes:Hoarding", options=OFTEN) as worker:
        connection = await node.accept_ready()
        report = await connection.next_of(FrameType.FIGURES)
        assert report.meta["warning_threshold"] == 0.8
        assert worker.process.returncode is None
