# SPDX-License-Identifier: Apache-2.0
"""Durable jobs that are cancelled or deleted at the wrong moment, by who may leave."""

import asyncio
import json
from pathlib import Path

import pytest

from gpuwarden.gateway.jobs import sealed
from gpuwarden.gateway.jobs.service import JobPlace
from tests.held_steps import as_far_as_it_gets, held_step
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node, job_place

KEY = {"Authorization": "Bearer open sesame, open sesame"}
CANCEL = json.dumps({"status": "cancelled"}).encode()


@pytest.fixture
def place(tmp_path: Path) -> JobPlace:
    return job_place(tmp_path / "jobs")


@pytest.fixture(autouse=True)
def api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpuwarden-api-key").write_text("open sesame, open sesame\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))


async def submit(node: GatewayNode, body: bytes = b"image") -> str:
    reply = await node.post(body, path="/v1/jobs")
    assert reply.status == 202, reply.body
    identifier: str = reply.json["id"]
    return identifier


async def change(node: GatewayNode, identifier: str, method: str, body: bytes = b"") -> Reply:
    return await node.post(body, path=f"/v1/jobs/{identifier}", method=method, headers=KEY)


def files(place: JobPlace) -> list[str]:
    return sorted(path.suffix for path in (place.folder / "files").iterdir())


async def test_a_job_that_ends_while_it_is_cancelled_keeps_its_answer_and_is_worked_on_once(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        job = await worker.next_job()
        with held_step(monkeypatch, sealed, "write") as held:
            worker.answer(job)
            await held.is_under_way()
            cancelling = asyncio.create_task(change(node, identifier, "PATCH", CANCEL))
            await as_far_as_it_gets(cancelling)
        reply = await cancelling
        assert (reply.status, reply.error) == (409, "job_finished")
        shown = (await node.get(f"/v1/jobs/{identifier}?wait=8")).json
        assert (shown["status"], shown["executions"]) == ("succeeded", 1)
        assert files(place) == [".result"]


async def test_a_job_that_is_deleted_while_it_ends_is_not_there_after_a_restart(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        job = await worker.next_job()
        with held_step(monkeypatch, sealed, "write") as held:
            worker.answer(job)
            await held.is_under_way()
            deleting = asyncio.create_task(change(node, identifier, "DELETE"))
            await as_far_as_it_gets(deleting)
        assert (await deleting).status == 200
    assert files(place) == []
    async with gateway_node(jobs=place) as node:
        assert (await node.get(f"/v1/jobs/{identifier}")).status == 404
