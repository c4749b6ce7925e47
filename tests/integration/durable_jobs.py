# SPDX-License-Identifier: Apache-2.0
"""What the tests of durable jobs over HTTP have in common."""

from typing import Any
from urllib.parse import quote

from gpuwarden.gateway.jobs.service import JobPlace
from gpuwarden.gateway.jobs.store import DiskStore
from tests.integration.gateway_node import GatewayNode, Reply

KEY = {"Authorization": "Bearer open sesame, open sesame"}  # of the fixture ``api_key``


async def submit(
    node: GatewayNode,
    body: bytes = b"image",
    query: str = "",
    *,
    question: str | None = None,
    **headers: str,
) -> str:
    """A new job's id."""
    if question is not None:
        query = f"?question={quote(question)}"
    reply = await node.post(body, path=f"/v1/jobs{query}", headers=headers)
    assert reply.status == 202, reply.body
    identifier: str = reply.json["id"]
    assert reply.headers["location"] == f"/v1/jobs/{identifier}"
    return identifier


async def finished(node: GatewayNode, identifier: str) -> dict[str, Any]:
    """A job once it has ended."""
    reply = await node.get(f"/v1/jobs/{identifier}?wait=8")
    assert reply.status == 200, reply.body
    assert reply.json["progress"]["is_finished"], reply.json
    return reply.json


async def change(node: GatewayNode, identifier: str, method: str, body: bytes = b"") -> Reply:
    """Ask for a change that needs the API key."""
    return await node.post(body, path=f"/v1/jobs/{identifier}", method=method, headers=KEY)


def store_of(node: GatewayNode) -> DiskStore:
    """The node's open store."""
    assert node.service.jobs.opened is not None
    return node.service.jobs.opened.store


def kinds(place: JobPlace) -> list[str]:
    """Which files the jobs have on disk."""
    return sorted(path.suffix for path in (place.folder / "files").iterdir())
