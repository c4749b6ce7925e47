# SPDX-License-Identifier: Apache-2.0
"""What /metrics tells, and what it must not."""

import asyncio
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse
from prometheus_client.parser import text_string_to_metric_families

from gpuwarden.gateway.work import Phase
from tests.integration.gateway_node import GatewayNode, gateway_node, read_reply

MIB = 1 << 20
WAYS = ("predict", "v1/images", "v1/jobs")


async def figures(node: GatewayNode) -> dict[str, float]:
    reply = await node.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("gpuwarden_gateway_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


async def test_every_request_is_counted_by_how_it_ended_and_how_long_it_took() -> None:
    async with gateway_node() as node:
        worker = await node.worker(3, auto=False, max_batch=2)
        running = node.service.dispatcher.queue.population
        posted = [asyncio.create_task(node.post(bytes(2 * MIB)))]
        await node.until(lambda: running[Phase.RUNNING] == 1)
        posted.append(asyncio.create_task(node.post(bytes(2 * MIB))))
        await node.until(lambda: running[Phase.RUNNING] == 2)
        posted += [asyncio.create_task(node.post(bytes(2 * MIB))) for _ in range(2)]
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        seen = await figures(node)
        assert seen["pool_bytes{state=in_use}"] == 8 * MIB
        assert seen["queue_depth"] == 2
        assert seen["credits{gpu=3}"] == 2
        assert seen["outstanding{gpu=3}"] == 2
        worker.fail(await worker.next_job(), "bad_image")
        for _ in range(3):
            worker.answer(await worker.next_job())
        await asyncio.gather(*posted)
        await node.post(b"", path="/predict")
        await node.get("/DOE^JOHN")
        seen = await figures(node)
        assert seen["requests_total{outcome=completed}"] == 3
        assert seen["requests_total{outcome=failed}"] == 1
        assert seen["requests_total{outcome=rejected}"] == 1
        for histogram in ("queue_wait_seconds", "execution_seconds", "total_seconds"):
            assert seen[f"{histogram}_count"] == 3
        assert seen["batch_size_sum"] == 4
        assert seen["http_responses_total{route=/predict,status=422}"] == 1
        assert seen["http_responses_total{route=other,status=404}"] == 1
        assert seen["worker_requests_total{worker=3}"] == 4


async def test_a_refusal_is_counted_whichever_way_it_came() -> None:
    chat: dict[str, Any] = {"path": "/v1/chat/completions", "media_type": "application/json"}
    other_model = {"X-Gpuwarden-Model": "another"}
    limits: dict[str, Any] = {"images_bytes": MIB, "job_disk_limit_bytes": MIB}
    async with gateway_node(body_limit_bytes=2 * MIB, **limits) as node:
        await node.worker()
        refused = [await node.post(bytes(3 * MIB), path=f"/{way}") for way in WAYS]
        assert [one.status for one in refused] == [413, 413, 413]
        refused.append(await node.post(bytes(2 * MIB), path="/v1/images"))
        refused.append(await node.post(bytes(2 * MIB), path="/v1/jobs"))
        refused.append(await node.post(b"{}", headers=other_model, **chat))
        assert [one.status for one in refused[3:]] == [429, 507, 404]
        for length in (0, MIB):  # the one way and the other
            refused.append(await node.post(bytes(length), path="/predict?what=else"))
        assert [one.status for one in refused[6:]] == [400, 400]
        seen = await figures(node)
        assert seen["requests_total{outcome=rejected}"] == len(refused)
        assert seen["accepted_total"] == 0
        lost = await node.post(b'{"model": "another"}', **chat)  # that is in its body
        seen = await figures(node)
        assert (lost.status, seen["requests_total{outcome=failed}"]) == (404, 1)
        assert seen["requests_total{outcome=rejected}"] == len(refused)


async def test_durable_jobs_are_counted_by_status() -> None:
    async with gateway_node() as node:
        assert (await node.post(b"later", path="/v1/jobs")).status == 202
        seen = await figures(node)
        assert (seen["jobs{status=queued}"], seen["jobs{status=succeeded}"]) == (1, 0)
        assert seen["jobs_bytes{state=stored}"] > 0
        assert seen["jobs_available"] == 1
        await node.worker()
        await node.until(lambda: node.service.jobs.published().succeeded == 1)
        seen = await figures(node)
        assert (seen["jobs{status=queued}"], seen["jobs{status=succeeded}"]) == (0, 1)
        assert seen["requests_total{outcome=completed}"] == 0  # of people alone


async def test_the_document_names_every_route_and_no_other() -> None:
    async with gateway_node() as node:
        document = (await node.get("/openapi.json")).json
        named = {(m.upper(), path) for path, ms in document["paths"].items() for m in ms}
        assert named == node.service._routes.known()


async def test_requeues_and_cancels_are_counted() -> None:
    async with gateway_node() as node:
        doomed = await node.worker(0, auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        await doomed.next_job()
        survivor = await node.worker(1, auto=False)
        doomed.close()
        await survivor.next_job()
        posted.cancel()
        await node.until(lambda: node.service.dispatcher.statistics.cancelled == 1)
        seen = await figures(node)
        assert seen["requeues_total"] == 1
        assert seen["requests_total{outcome=cancelled}"] == 1


async def test_what_is_no_http_and_what_fails_here_is_counted_too() -> None:
    async def fail(request: BaseRequest) -> StreamResponse:
        raise ValueError("DOE^JOHN")

    async with gateway_node(header_limit_bytes=2048) as node:
        node.service._routes.add("GET", "/healthz", fail)
        assert (await node.get("/healthz")).status == 500
        for head, status in (
            (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 4096, 431),
        ):
            reader, writer = await node.connect()
            writer.write(head)
            assert (await read_reply(reader)).status == status
            writer.close()
        seen = await figures(node)
        assert seen["http_responses_total{route=/healthz,status=500}"] == 1
        assert seen["http_responses_total{route=other,status=400}"] == 1
        assert seen["http_responses_total{route=other,status=431}"] == 1
