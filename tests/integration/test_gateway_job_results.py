# SPDX-License-Identifier: Apache-2.0
"""Large results of durable jobs: stored encrypted, read back whole, gone with the job."""

import asyncio
from typing import Any

import pytest

from gpuwarden.gateway.jobs.service import JobPlace
from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.durable_jobs import KEY, finished, submit
from tests.integration.gateway_node import DEADLINE_SECONDS, GatewayNode, gateway_node
from tests.integration.model_classes import filling
from tests.integration.real_worker import real_worker

pytestmark = pytest.mark.usefixtures("api_key")

MIB = 1 << 20
FILLING = {"engine": "model_classes:Filling"}


def held_bytes(node: GatewayNode) -> int:
    return node.service.dispatcher.lending.pool.in_use_bytes


async def test_a_file_is_kept_encrypted_and_read_by_whoever_knows_the_id(place: JobPlace) -> None:
    size = 3 * MIB + 1
    async with gateway_node(jobs=place) as node, real_worker(node, **FILLING):
        identifier = await submit(node, question=f"image/png {size}")
        job = await finished(node, identifier)
        assert job["status"] == "succeeded"
        assert job["result"]["answer"] == {"bytes": size}
        content: dict[str, Any] = {
            "media_type": "image/png",
            "bytes": size,
            "url": f"/v1/results/{identifier}",
        }
        assert job["result"]["content"] == content
        (stored,) = (place.folder / "files").glob("*.result")
        assert stored.stat().st_size > size
        assert filling(32) not in stored.read_bytes()
        await node.until(lambda: held_bytes(node) == 0)
    async with gateway_node(jobs=place) as node:
        assert (await finished(node, identifier))["result"]["content"] == content
        reply = await node.get(content["url"])
        assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
        assert reply.body == filling(size)
        reader, writer = await node.connect()
        head = f"HEAD {content['url']} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        told = await reader.read()
        assert f"Content-Length: {size}\r\n".encode() in told
        assert told.endswith(b"\r\n\r\n")
        writer.close()
        assert held_bytes(node) == 0
        await node.post(b"", path=f"/v1/jobs/{identifier}", method="DELETE", headers=KEY)
        assert (await node.get(content["url"])).status == 404
        assert list((place.folder / "files").iterdir()) == []


@pytest.mark.parametrize("size", [0, 10, 60_000])
async def test_a_small_file_takes_no_buffer(place: JobPlace, size: int) -> None:
    async with gateway_node(jobs=place) as node, real_worker(node, **FILLING):
        identifier = await submit(node, question=f"application/dicom {size}")
        assert (await finished(node, identifier))["result"]["content"]["bytes"] == size
        assert (await node.get(f"/v1/results/{identifier}")).body == filling(size)
        assert node.service.dispatcher.lending.lent == 0


async def test_a_large_answer_of_a_job_looks_like_a_small_one(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node, real_worker(node, **FILLING):
        small, large = (
            await submit(node, question="json 60"),
            await submit(node, question="json 300000"),
        )
        for identifier, count in ((small, 10), (large, 50_000)):
            answer = {"filling": "é" * count}
            job = await finished(node, identifier)
            assert job["result"]["answer"] == answer
            assert job["result"]["model"] == "test-model"
            bare = await node.get(f"/v1/results/{identifier}")
            assert (bare.headers["content-type"].split(";")[0], bare.json) == (
                "application/json",
                answer,
            )
        await node.until(lambda: held_bytes(node) == 0)


async def test_results_that_are_not_there_are_told(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        waiting = await submit(node, question="json 60")
        reply = await node.get(f"/v1/results/{waiting}")
        assert (reply.status, reply.error) == (409, "job_unfinished")
        worker = await node.busy_worker(auto=False)
        worker.fail(await worker.next_job(), "bad_image")
        await finished(node, waiting)
        assert (await node.get(f"/v1/results/{waiting}")).status == 404
        assert (await node.get("/v1/results/nonsense")).status == 404


async def test_a_damaged_file_is_never_sent(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node, real_worker(node, **FILLING):
        identifier = await submit(node, question="image/png 200000")
        await finished(node, identifier)
        (stored,) = (place.folder / "files").glob("*.result")
        content = bytearray(stored.read_bytes())
        content[-100_000] ^= 1
        stored.write_bytes(content)
        reply = await node.get(f"/v1/results/{identifier}")
        assert (reply.status, reply.error) == (500, "result_unreadable")
        assert held_bytes(node) == 0


async def test_a_large_result_that_the_disk_has_no_room_for_ends_its_job_by_name(
    place: JobPlace,
) -> None:
    settings: dict[str, Any] = {"job_disk_limit_bytes": MIB, "job_disk_free_share": 0.0}
    async with gateway_node(jobs=place, **settings) as node, real_worker(node, **FILLING):
        small = await submit(node, question="image/png 200000")
        assert (await finished(node, small))["status"] == "succeeded"
        large = await submit(node, question="image/png 2000000")
        job = await finished(node, large)
        assert (job["status"], job["error"]["type"]) == ("failed", "insufficient_storage")
        assert "disk_limit_bytes" in job["error"]["message"]
        await node.until(lambda: held_bytes(node) == 0)


async def test_a_cancelled_job_leaves_no_buffer(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, question="what")
        worker = await node.busy_worker(auto=False)
        job = await worker.next_job()
        await worker.borrow(job, MIB)
        cancel = {"Content-Type": "application/json", **KEY}
        body = b'{"status": "cancelled"}'
        path = f"/v1/jobs/{identifier}"
        reply = await node.post(body, path=path, method="PATCH", headers=cancel, media_type=None)
        assert reply.json["status"] == "cancelled"
        assert (await worker.next_frame()).type == FrameType.CANCEL
        worker.hand_in(job, b"too late")
        await node.until(lambda: held_bytes(node) == 0)
        assert (await finished(node, identifier))["status"] == "cancelled"


async def test_a_small_file_is_handed_over_to_the_next_front_door_and_half_a_one_is_not(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, question="what")
        worker = await node.busy_worker(auto=False)
        ticket = (await worker.next_job()).frame.meta["ticket"]
    content = {"part": "file", "media_type": "image/png", "length": 4}
    meta = {"ok": True, "answer": {}, "ticket": ticket, "content": content}
    async with gateway_node(jobs=place) as node:
        worker = await node.busy_worker(auto=False)
        await worker.next_job()
        half = meta | {"content": content | {"length": 100_000}}
        worker.send(Frame(FrameType.RESULT, meta=half, body=b"mask"))
        worker.send(Frame(FrameType.RESULT, meta=meta, body=b"mask"))
        await finished(node, identifier)
        assert (await node.get(f"/v1/results/{identifier}")).body == b"mask"


async def test_a_large_result_whose_front_door_ends_is_made_again(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, question="image/png 200000")
        worker = await node.busy_worker(auto=False)
        job = await worker.next_job()
        await worker.borrow(job, 200_000)
        worker.close()
        await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)
    async with gateway_node(jobs=place) as node, real_worker(node, **FILLING):
        job_now = await finished(node, identifier)
        assert (job_now["status"], job_now["executions"]) == ("succeeded", 2)
        assert (await node.get(f"/v1/results/{identifier}")).body == filling(200_000)
