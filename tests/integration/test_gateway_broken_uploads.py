# SPDX-License-Identifier: Apache-2.0
"""Each broken upload ends in the right refusal, and its neighbours don't notice."""

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from tests.integration.broken_uploads import CORPUS, POST, PROBE, Broken
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node, job_place, read_reply
from tests.open_files import held_files

CHAT = b"/v1/chat/completions"
JOBS = b"/v1/jobs"
PATHS = (b"/predict", b"/v1/images", CHAT, JOBS)
TOGETHER = 8
HEAD_BYTES = 8192  # whoever writes on behind a refusal of more may be told of a reset alone
APART_SECONDS = 0.05  # long enough to be read by itself
POOLED = 2 * TOGETHER  # descriptors of buffers that are kept for reuse, here and at the worker


async def answers(node: GatewayNode, broken: Broken, path: bytes, *, apart: bool) -> list[int]:
    """The statuses of all that a connection answers to these bytes.

    :param apart: whether the body comes a while after its head, where that is not refused at once.
    """
    reader, writer = await node.connect()
    head, end, body = broken.data.replace(POST[:13], b"POST " + path).partition(b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        writer.write(head + end)
        if apart and len(head) < HEAD_BYTES:
            await writer.drain()
            await asyncio.sleep(APART_SECONDS)
        writer.write(body)
        if broken.ends:
            writer.write_eof()
        await writer.drain()
    statuses = []
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while "mode" not in (reply := await read_reply(reader)).json:
            statuses.append(reply.status)
            check_error(reply)
            if reply.headers.get("connection") == "close":
                writer.write_eof()  # or what is left of the body would be awaited
            elif len(statuses) == 1:
                writer.write(PROBE)
    writer.close()
    return statuses


def check_error(reply: Reply) -> None:
    """In OpenAI's form, with what is at fault."""
    assert reply.headers["content-type"].startswith("application/json")
    assert set(reply.json) == {"error"}
    assert set(reply.json["error"]) == {"type", "message", "param"}
    assert all(isinstance(value, str) and value for value in reply.json["error"].values()), reply


def is_right(broken: Broken, path: bytes, statuses: list[int]) -> bool:
    allowed = set(broken.statuses)
    if path == CHAT and b"Content-Type:" in broken.data:
        allowed |= {415}
    return len(statuses) == bool(allowed) and set(statuses) <= allowed


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.decode().rpartition("/")[2])
async def test_every_broken_upload_ends_in_its_refusal_and_neighbours_are_undisturbed(
    path: bytes, apart: bool, tmp_path: Path
) -> None:
    place = job_place(tmp_path / "jobs")
    async with gateway_node(
        jobs=place,
        body_limit_bytes=3 << 20,
        request_timeout_seconds=2.0,
        header_timeout_seconds=1.0,
    ) as node:
        await node.worker()
        before = held_files()
        done = asyncio.Event()

        async def neighbour(size: int) -> int:
            count = 0
            while not done.is_set():
                body = os.urandom(size)
                reply = await node.post(body)
                assert reply.status == 200
                assert reply.json["answer"]["sha256"] == hashlib.sha256(body).hexdigest()
                count += 1
            return count

        neighbours = [asyncio.create_task(neighbour(size)) for size in (100, 2 << 20)]
        places = asyncio.Semaphore(TOGETHER)

        async def tried(broken: Broken) -> tuple[str, list[int]] | None:
            async with places:
                statuses = await answers(node, broken, path, apart=apart)
            return None if is_right(broken, path, statuses) else (broken.name, statuses)

        tries = await asyncio.gather(*map(tried, CORPUS))
        done.set()
        assert min(await asyncio.gather(*neighbours)) > 5
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        assert node.service.dispatcher.queue.held_bytes == 0
        assert node.service.images.held_bytes == 0
        assert list((place.folder / "files").iterdir()) == []
        await node.until(lambda: held_files() <= before + POOLED)
    assert [one for one in tries if one is not None] == []
