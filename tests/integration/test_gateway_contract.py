# SPDX-License-Identifier: Apache-2.0
"""The HTTP contract, member by member: method, path, statuses, headers and fields of each."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpuwarden.gateway.operations import OPERATIONS
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node, read_reply
from tests.integration.real_worker import real_worker

KEY = "k" * 32
JSON = "application/json"
FORM = "multipart/form-data; boundary=b"
CHAT = b'{"model": "test-model", "messages": [{"role": "user", "content": "hello"}]}'
STREAM = CHAT[:-1] + b', "stream": true}'
PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
ENCODED = "application/x-www-form-urlencoded"
PREDICT = PART % (b"image", b"pixels") + PART % (b"question", b"why") + b"--b--\r\n"
JOB = {
    *("id", "object", "status", "priority", "created_at", "started_at", "finished_at", "bytes"),
    *("executions", "progress", "result", "error"),
}
IMAGE = {"id", "object", "url", "media_type", "bytes", "expires_at"}
COMPLETION = {"id", "object", "created", "model", "choices", "usage"}
ECHO = {"question", "media_type", "parameters", "body_bytes", "body_sha256"}
MODE = {"mode", "seconds_left", "limited_by_heat"}


@dataclass(frozen=True)
class Member:
    """One thing that the contract promises.

    :ivar path: with ``IMAGE``, ``JOB`` for the id of one that was sent.
    :ivar fields: of the answer; all of them and no other.
    :ivar headers: that the answer has, beside its type and length.
    """

    method: str
    path: str
    body: bytes = b""
    media_type: str | None = None
    status: int = 200
    answered_as: str = JSON
    fields: set[str] = field(default_factory=set)
    headers: set[str] = field(default_factory=set)


CONTRACT = (
    Member("POST", "/v1/chat/completions", CHAT, JSON, fields=COMPLETION),
    Member("POST", "/v1/chat/completions", STREAM, JSON, answered_as="text/event-stream"),
    Member("GET", "/v1/models", fields={"object", "data"}),
    Member("POST", "/predict", PREDICT, FORM, fields={"answer", "model", "worker", "seconds"}),
    Member(
        "POST",
        "/predict?question=why",
        b"pixels",
        "image/png",
        fields={"answer", "model", "worker", "seconds"},
    ),
    Member("POST", "/v1/images", b"pixels", "image/jpeg", 201, fields=IMAGE),
    Member(
        "POST",
        "/v1/jobs",
        PREDICT,
        FORM,
        202,
        fields=JOB - {"result", "error"},
        headers={"location", "retry-after"},
    ),
    Member("GET", "/v1/jobs", fields={"object", "data", "has_more", "next", "counts"}),
    Member("GET", "/v1/jobs/JOB?wait=20", fields=JOB - {"error"}, headers={"location"}),
    Member("GET", "/v1/results/JOB", fields=ECHO),
    Member("PATCH", "/v1/jobs/JOB", b'{"status": "cancelled"}', JSON, 409),
    Member("DELETE", "/v1/jobs/JOB", fields={"id", "object", "deleted"}),
    Member("DELETE", "/v1/images/IMAGE", fields={"id", "object", "deleted"}),
    Member("GET", "/api/thermal_mode", fields=MODE),
    Member("POST", "/api/thermal_mode?mode=eco", fields=MODE),
    Member(
        "POST",
        "/api/thermal_mode",
        b"mode=normal",
        "application/x-www-form-urlencoded",
        fields=MODE,
    ),
    Member("GET", "/healthz", fields={"status"}),
    Member("GET", "/readyz", fields={"ready", "workers_ready"}),
    Member("GET", "/metrics", answered_as="text/plain; version=1.0.0; charset=utf-8"),
    Member(
        "GET",
        "/openapi.json",
        fields={"openapi", "info", "servers", "paths", "components", "security"},
    ),
)


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GatewayNode]:
    (tmp_path / "gpuwarden-api-key").write_text(KEY)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    async with gateway_node() as running, real_worker(running):
        yield running


async def test_every_member_of_the_contract_answers_as_promised(node: GatewayNode) -> None:
    ids: dict[str, str] = {}
    wrong = []
    for member in CONTRACT:
        path = member.path
        for name, identifier in ids.items():
            path = path.replace(name, identifier)
        reply = await node.post(
            member.body,
            path=path,
            method=member.method,
            media_type=member.media_type,
            headers={"Authorization": f"Bearer {KEY}"},
        )
        came = {
            "status": reply.status == member.status,
            "type": reply.headers["content-type"].startswith(member.answered_as),
            "headers": member.headers <= set(reply.headers),
            "fields": not member.fields or set(reply.json) == member.fields,
        }
        if not all(came.values()):
            wrong.append((member.method, member.path, reply.status, reply.body[:200], came))
        if member.path in ("/v1/images", "/v1/jobs") and "id" in (reply.json if reply.body else {}):
            ids["IMAGE" if member.path == "/v1/images" else "JOB"] = reply.json["id"]
    assert wrong == []


def test_the_table_has_every_operation_and_every_operation_is_in_it() -> None:
    promised = {
        (member.method, "/".join("{id}" if part in ("JOB", "IMAGE") else part for part in parts))
        for member in CONTRACT
        for parts in [member.path.partition("?")[0].split("/")]
    }
    assert promised == {(operation.method, operation.path) for operation in OPERATIONS}


async def announce(node: GatewayNode, method: str, path: str, length: int) -> Reply:
    """What is answered to the headers alone, whose client waits with the body."""
    reader, writer = await node.connect()
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    reply = await read_reply(reader)
    writer.close()
    return reply


async def test_every_body_is_asked_for_or_refused_before_it_is_sent(node: GatewayNode) -> None:
    job = await node.post(PREDICT, path="/v1/jobs", media_type=FORM)
    for operation in OPERATIONS:
        if not operation.body:
            continue
        path = operation.path.replace("{id}", job.json["id"])
        assert (await announce(node, operation.method, path, 3)).status == 100, path
        refused = await announce(node, operation.method, path, 1 << 40)
        assert (refused.status, refused.error) == (413, "body_too_large"), path


@pytest.mark.parametrize("path", ["/predict", "/v1/chat/completions"])
async def test_without_a_worker_it_is_said_before_the_body(path: str) -> None:
    async with gateway_node(grace_seconds=0) as node:
        refused = await announce(node, "POST", path, 9)
        assert (refused.status, refused.error) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 5


async def test_when_it_is_full_the_time_to_come_back_is_what_was_measured() -> None:
    async with gateway_node(queue_limit=2) as node:
        worker = await node.worker(auto=False, max_batch=1)
        posts = [asyncio.create_task(node.post(b"image")) for _ in range(4)]
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        node.service.dispatcher.statistics.service_seconds = 3.5
        refused = await announce(node, "POST", "/predict", 9)
        assert (refused.status, refused.error) == (429, "queue_full")
        places = node.service.dispatcher.queue.cards.capacity
        assert int(refused.headers["retry-after"]) == math.ceil(3.5 * 2 / places)
        worker.answers_by_itself = True
        while not worker.jobs.empty():
            worker.answer(await worker.next_job())
        assert [reply.status for reply in await asyncio.gather(*posts)] == [200] * 4
