# SPDX-License-Identifier: Apache-2.0
import asyncio
import logging
import os

import pytest

from tests.integration.gateway_node import gateway_node, read_reply
from tests.integration.gateway_peer import GatewayPeer, ReceivedJob

MIB = 1 << 20


async def test_an_upload_of_300_mb_is_refused_before_it_is_sent() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 314572800\r\n\r\n"
        )
        reply = await read_reply(reader)
        writer.close()
        assert (reply.status, reply.error) == (413, "body_too_large")
        assert "134217728 bytes (128 MiB)" in reply.json["error"]["message"]
        assert reply.headers["connection"] == "close"


async def test_a_client_that_reads_only_after_it_sent_everything_sees_the_refusal_too() -> None:
    async with gateway_node(body_limit_bytes=MIB) as node:
        await node.worker()
        reader, writer = await node.connect()
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
        writer.write(head.format(40 * MIB).encode() + bytes(40 * MIB))
        await writer.drain()
        assert (await read_reply(reader)).error == "body_too_large"
        writer.close()


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Content-Length": "0"}, 400, "invalid_request"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"Content-Type": "multipart/form-data"}, 400, "invalid_request"),
        ({"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ({"Origin": "http://localhost:7860"}, 403, "forbidden"),
        ({"Host": "evil.example:7860"}, 403, "forbidden"),
        (
            {"X-Padding": "x" * 7000, "X-More": "x" * 7000, "X-Yet": "x" * 7000},
            431,
            "headers_too_large",
        ),
        ({"X-Padding": "x" * 9000}, 431, "headers_too_large"),
        ({"X-Question": "q" * 7000 + "\xff"}, 400, "invalid_request"),
        ({"Transfer-Encoding": "gzip, chunked"}, 400, "invalid_request"),
        ({"Transfer-Encoding": "chunked"}, 400, "invalid_request"),
        ({"Content-Length": "4, 4"}, 400, "invalid_request"),
        ({"Content-Length": "+4"}, 400, "invalid_request"),
    ],
)
async def test_what_headers_show_to_be_wrong_is_refused(
    headers: dict[str, str], status: int, kind: str
) -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        all_headers = {"Host": "localhost", "Content-Length": "4"} | headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
        writer.write(f"POST /predict HTTP/1.1\r\n{lines}\r\nabcd".encode("latin-1"))
        reply = await read_reply(reader)
        writer.close()
    assert (reply.status, reply.error) == (status, kind)
    assert reply.headers["content-type"].startswith("application/json")


async def test_two_content_lengths_are_refused() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"
        )
        assert (await read_reply(reader)).status == 400
        assert await reader.read() == b""
        writer.close()


async def test_a_missing_length_is_asked_for() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_reply(reader)).error == "length_required"
        writer.close()


@pytest.mark.parametrize(
    "chunks", [b"zz\r\nabc\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"-1\r\nabc\r\n0\r\n\r\n"]
)
async def test_broken_chunks_are_refused(chunks: bytes) -> None:
    async with gateway_node(request_timeout_seconds=2) as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunks
        )
        reply = await read_reply(reader)
        writer.close()
        assert reply.status == 400
        assert (await node.post(b"neighbour")).status == 200


@pytest.mark.parametrize("boundary_end", [b"", b"--frontier", b"\r\n--frontierX\r\n"])
async def test_a_truncated_form_is_refused(boundary_end: bytes) -> None:
    head = b'--frontier\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    body = head + os.urandom(2 * MIB).replace(b"\r", b"\n") + boundary_end
    async with gateway_node() as node:
        await node.worker()
        reply = await node.post(body, media_type="multipart/form-data; boundary=frontier")
    assert (reply.status, reply.error) == (400, "invalid_request")
    assert "broken" in reply.json["error"]["message"]


async def test_without_a_worker_it_says_so() -> None:
    async with gateway_node(grace_seconds=0) as node:
        reply = await node.post(b"image")
        assert (reply.status, reply.error) == (503, "unavailable")
        assert int(reply.headers["retry-after"]) > 0
        ready = await node.get("/readyz")
        assert (ready.status, ready.json["reasons"]) == (503, ["no worker is connected"])


async def test_ready_is_a_matter_of_workers_healthy_is_not() -> None:
    async with gateway_node() as node:
        loading = GatewayPeer(node.dispatch_path, 3)
        loading.hello("loading")
        await loading.next_frame()
        assert (await node.get("/healthz")).json == {"status": "ok"}
        ready = await node.get("/readyz")
        assert (ready.status, ready.json["reasons"]) == (503, ["worker 3 is loading"])
        await node.worker(1)
        ready = await node.get("/readyz")
        assert (ready.status, ready.json) == (200, {"ready": True, "workers_ready": 1})
        models = await node.get("/v1/models")
        assert [model["id"] for model in models.json["data"]] == ["imagestats"]
        loading.close()


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    async with gateway_node(queue_limit=2) as node:
        worker = await node.worker(auto=False, max_batch=1)
        running = [asyncio.create_task(node.post(b"running")) for _ in range(2)]
        held = [await worker.next_job(), await worker.next_job()]
        waiting = [asyncio.create_task(node.post(b"waiting")) for _ in range(2)]
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        reply = await node.post(bytes(3 * MIB))
        assert (reply.status, reply.error) == (429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        worker.answers_by_itself = True
        for job in held:
            worker.answer(job)
        replies = await asyncio.gather(*running, *waiting)
        assert [reply.status for reply in replies] == [200] * 4
        assert node.service.dispatcher.statistics.rejected == 1


@pytest.mark.parametrize(
    ("queue_limit_bytes", "pool_bytes"), [(5 * MIB, 512 * MIB), (512 * MIB, 4 * MIB)]
)
async def test_bodies_that_fill_the_memory_refuse_the_next(
    queue_limit_bytes: int, pool_bytes: int
) -> None:
    async with gateway_node(queue_limit_bytes=queue_limit_bytes, pool_bytes=pool_bytes) as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(bytes(3 * MIB)))
        job = await worker.next_job()
        node.service.dispatcher.statistics.service_seconds = 18.0  # four at a time
        reply = await node.post(bytes(3 * MIB))
        assert (reply.status, reply.error) == (429, "queue_full")
        assert reply.headers["retry-after"] == "5"
        assert (await asyncio.gather(node.post(b"x"), release(worker, job)))[0].status == 200
        assert (await posted).status == 200
        assert node.service.dispatcher.statistics.rejected == 1
        assert node.service.dispatcher.statistics.accepted == 2


async def release(worker: GatewayPeer, job: ReceivedJob) -> None:
    worker.answer(await worker.next_job())
    worker.answer(job)


@pytest.mark.parametrize("length", [100, 3 * MIB])
async def test_a_client_that_stalls_is_given_up(length: int) -> None:
    async with gateway_node(request_timeout_seconds=0.3) as node:
        await node.worker()
        reader, writer = await node.connect()
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nsome" % length
        )
        reply = await read_reply(reader)
        assert (reply.status, reply.error) == (408, "request_timeout")
        assert reply.headers["connection"] == "close"
        assert node.service.dispatcher.queue.held_bytes == 0
        assert node.service.pool.in_use_bytes == 0
        writer.close()


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("bad_image", 422, "bad_image"),
        ("bad_request", 400, "invalid_request"),
        ("engine_error", 500, "engine_error"),
        ("something_new", 500, "engine_error"),
    ],
)
async def test_a_workers_error_reaches_its_caller(kind: str, status: int, error: str) -> None:
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(node.post(b"not an image"))
        worker.fail(await worker.next_job(), kind, "no pixel data in it")
        reply = await posted
    assert (reply.status, reply.error) == (status, error)
    assert reply.json["error"]["message"] == "no pixel data in it"


async def test_unknown_places_and_methods_are_refused() -> None:
    async with gateway_node() as node:
        assert (await node.get("/nothing")).error == "not_found"
        reply = await node.get("/predict")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")


async def test_what_is_not_http_gets_an_error_in_our_form() -> None:
    async with gateway_node() as node:
        reader, writer = await node.connect()
        writer.write(b"PATIENT DOE JOHN\r\n\r\n")
        reply = await read_reply(reader)
        assert (reply.status, reply.error) == (400, "invalid_request")
        assert b"DOE" not in reply.body
        writer.close()


async def test_no_log_holds_anything_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = b"DOE^JOHN"
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="%b"\r\n\r\n%b\r\n--b--'
    async with gateway_node() as node:
        worker = await node.worker(auto=False)
        posted = asyncio.create_task(
            node.post(
                part % (secret, secret),
                media_type="multipart/form-data; boundary=b",
                path="/predict?question=DOE%5EJOHN",
                headers={"X-Request": "DOE^JOHN"},
            )
        )
        worker.answer(await worker.next_job(), answer={"text": "DOE^JOHN"})
        assert (await posted).status == 200
        await node.post(secret, media_type="DOE^JOHN/x")
        await node.get("/DOE^JOHN")
        worker.close()
        await node.until(lambda: not node.service.dispatcher.links)
    assert "DOE" not in caplog.text


async def test_who_would_be_answered_too_late_is_refused_although_there_is_room() -> None:
    async with gateway_node(request_timeout_seconds=4.0) as node:
        worker = await node.worker(auto=False, max_batch=1)
        timing = {"preprocess_seconds": 0.0, "predict_seconds": 1.0}
        first = asyncio.create_task(node.post(b"measured"))
        worker.answer(await worker.next_job(), timing=timing)
        assert (await first).status == 200

        # One runs, one is prepared, one waits: the next would have its answer after 4 s.
        posted = [asyncio.create_task(node.post(b"in time")) for _ in range(3)]
        await node.until(lambda: node.service.dispatcher.statistics.accepted == 4)
        await node.until(lambda: node.service.dispatcher.queue.depth == 1)
        late = await node.post(b"too late")
        assert (late.status, late.error) == (429, "queue_full")
        assert "longer than a request may take" in late.json["error"]["message"]
        assert int(late.headers["retry-after"]) >= 1

        for _ in posted:
            worker.answer(await worker.next_job(), timing=timing)
        assert [(await one).status for one in posted] == [200] * 3
