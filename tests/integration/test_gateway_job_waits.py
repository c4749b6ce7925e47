# SPDX-License-Identifier: Apache-2.0
"""A disk of the job store that hangs: whoever waits for it is told, and nothing is lost by that."""

import asyncio

import pytest

from gpuwarden.gateway.jobs import results, rows, sealed, service
from gpuwarden.gateway.jobs.service import JobPlace
from gpuwarden.gateway.jobs.values import JobStatus
from tests.held_steps import held_step
from tests.integration.durable_jobs import change, kinds, store_of, submit
from tests.integration.gateway_node import (
    DEADLINE_SECONDS,
    GatewayNode,
    Reply,
    gateway_node,
)

pytestmark = pytest.mark.usefixtures("api_key")
MIB = 1 << 20
PATIENCE_SECONDS = 1.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "PATIENCE_SECONDS", PATIENCE_SECONDS)


def check_told(reply: Reply) -> None:
    assert (reply.status, reply.error) == (503, "jobs_unavailable")
    assert "disk doesn't answer" in reply.json["error"]["message"]
    assert "retry-after" in reply.headers


def queued(node: GatewayNode) -> int:
    return store_of(node).counts[JobStatus.QUEUED]


async def test_a_job_whose_writing_hangs_is_told_of_and_keeps_its_share_until_it_is_written(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place, pool_bytes=4 * MIB) as node:
        with held_step(monkeypatch, sealed, "write"):
            check_told(await node.post(b"a" * MIB, path="/v1/jobs"))
            more = await node.post(b"b" * MIB, path="/v1/jobs")  # a quarter of the pool is full
            assert (more.status, more.error) == (429, "queue_full")
        await node.until(lambda: queued(node) == 1)
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        await submit(node, b"c" * MIB)


async def test_whoever_looks_at_a_job_is_told_when_the_disk_hangs(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        with held_step(monkeypatch, rows, "find"):
            looks = (f"/v1/jobs/{identifier}", f"/v1/results/{identifier}")
            for reply in await asyncio.gather(*map(node.get, looks)):
                check_told(reply)
        assert (await node.get(f"/v1/jobs/{identifier}")).status == 200


async def test_whoever_waits_for_a_jobs_end_is_told_when_the_disk_hangs(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        opened = node.service.jobs.opened
        assert opened is not None
        waiting = asyncio.create_task(node.get(f"/v1/jobs/{identifier}?wait=1"))
        await node.until(lambda: identifier in opened._finished)
        with held_step(monkeypatch, rows, "find"):
            check_told(await waiting)


async def test_a_job_is_deleted_though_the_disk_was_too_slow_for_its_caller(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        with held_step(monkeypatch, rows, "mark_deleting"):
            check_told(await change(node, identifier, "DELETE"))
        await node.until(lambda: kinds(place) == [])
        assert (await node.get(f"/v1/jobs/{identifier}")).status == 404


async def test_an_order_to_stop_waits_for_no_disk_that_hangs_before_it_serves_to_the_end(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "EXPIRY_SECONDS", 0.02)
    async with gateway_node(jobs=place, job_keep_seconds=0) as node:
        await node.worker()
        await submit(node)
        with held_step(monkeypatch, rows, "mark_deleting") as held:
            await held.is_under_way()
            node.ordered_to_stop.set()
            await asyncio.wait_for(asyncio.shield(node.running), DEADLINE_SECONDS)
    assert kinds(place) == []
