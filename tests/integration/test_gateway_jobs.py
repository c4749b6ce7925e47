"""Durable jobs over HTTP, with workers' real frames and a store on disk."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.gateway.jobs.keys import NoKeyError, StoreKey
from gpuwarden.gateway.jobs.service import JobPlace
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node

MIB = 1 << 20
SECRET = bytes(range(32))


@pytest.fixture
def place(tmp_path: Path) -> JobPlace:
    folder = tmp_path / "jobs"
    folder.mkdir()
    return JobPlace(folder, lambda: StoreKey(SECRET))


@pytest.fixture(autouse=True)
def api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpuwarden-api-key").write_text("open sesame\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))


KEY = {"Authorization": "Bearer open sesame"}


async def submit(node: GatewayNode, body: bytes = b"image", query: str = "", **headers: str) -> str:
    reply = await node.post(body, path=f"/v1/jobs{query}", headers=headers)
    assert reply.status == 202, reply.body
    identifier: str = reply.json["id"]
    assert reply.headers["location"] == f"/v1/jobs/{identifier}"
    return identifier


async def finished(node: GatewayNode, identifier: str) -> dict[str, Any]:
    reply = await node.get(f"/v1/jobs/{identifier}?wait=8")
    assert reply.status == 200, reply.body
    assert reply.json["progress"]["is_finished"], reply.json
    return reply.json


async def test_a_job_waits_for_a_worker_and_keeps_its_answer(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        small = await submit(node, b"small", "?question=what")
        large = await submit(node, b"x" * 3 * MIB)
        waiting = (await node.get(f"/v1/jobs/{large}")).json
        assert (waiting["status"], waiting["progress"]["jobs_ahead"]) == ("queued", 1)
        await node.worker()
        for identifier, length in ((small, 5), (large, 3 * MIB)):
            job = await finished(node, identifier)
            assert job["status"] == "succeeded"
            assert job["result"]["answer"]["bytes"] == length
            assert job["executions"] == 1
        left = sorted(path.suffix for path in (place.folder / "files").iterdir())
        assert left == [".result", ".result"]
