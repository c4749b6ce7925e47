# SPDX-License-Identifier: Apache-2.0
"""Durable jobs that are cancelled or deleted at the wrong moment, by who may leave."""

import asyncio
import errno
import json
from pathlib import Path

import pytest

from gpuwarden.gateway.jobs import rows, sealed, service
from gpuwarden.gateway.jobs.service import JobPlace
from tests.held_steps import Held, as_far_as_it_gets, held_step
from tests.integration.durable_jobs import change, kinds, submit
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.gateway_peer import GatewayPeer, ReceivedJob

pytestmark = pytest.mark.usefixtures("api_key")

CANCEL = json.dumps({"status": "cancelled"}).encode()


async def at_work(node: GatewayNode) -> tuple[GatewayPeer, str, ReceivedJob]:
    """A worker, and the job that it works on."""
    worker = await node.worker(auto=False)
    identifier = await submit(node)
    return worker, identifier, await worker.next_job()


async def test_a_job_that_ends_while_it_is_cancelled_keeps_its_answer_and_is_worked_on_once(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        worker, identifier, job = await at_work(node)
        with held_step(monkeypatch, sealed, "write") as held:
            worker.answer(job)
            await held.is_under_way()
            cancelling = asyncio.create_task(change(node, identifier, "PATCH", CANCEL))
            await as_far_as_it_gets(cancelling)
        reply = await cancelling
        assert (reply.status, reply.error) == (409, "job_finished")
        shown = (await node.get(f"/v1/jobs/{identifier}?wait=8")).json
        assert (shown["status"], shown["executions"]) == ("succeeded", 1)
        assert kinds(place) == [".result"]


async def test_a_job_that_is_deleted_while_it_ends_is_not_there_after_a_restart(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        worker, identifier, job = await at_work(node)
        with held_step(monkeypatch, sealed, "write") as held:
            worker.answer(job)
            await held.is_under_way()
            deleting = asyncio.create_task(change(node, identifier, "DELETE"))
            await as_far_as_it_gets(deleting)
        assert (await deleting).status == 200
    assert kinds(place) == []
    async with gateway_node(jobs=place) as node:
        assert (await node.get(f"/v1/jobs/{identifier}")).status == 404


async def test_a_job_that_nobody_wants_before_its_work_begins_keeps_no_place(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        assert node.service.jobs.opened is not None
        feeder = node.service.jobs.opened.feeder
        claim, unwanted = feeder._claim, list[asyncio.Task[None]]()

        async def claim_what_nobody_wants() -> None:
            await claim()
            for one in feeder.running.values():
                assert one.task is not None
                one.task.cancel()  # as ``stop_work`` does: its first step has not come yet
                unwanted.append(one.task)

        monkeypatch.setattr(feeder, "_claim", claim_what_nobody_wants)
        await node.worker(auto=False)
        await submit(node)
        await node.until(lambda: bool(unwanted))
        await asyncio.wait(unwanted)
        assert not feeder.running


async def hang_up_in(node: GatewayNode, held: Held, head: bytes, body: bytes = b"") -> None:
    """Ask for a change that needs the job's key, and leave in the middle of it."""
    headers = b"Host: localhost\r\nAuthorization: Bearer open sesame, open sesame\r\n"
    _, writer = await node.connect()
    writer.write(b"%s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (head, headers, len(body)) + body)
    await held.is_under_way()
    writer.transport.abort()
    server = node.service._runner.server
    assert server is not None
    await node.until(lambda: not server.connections)


async def test_who_hangs_up_has_the_job_deleted_all_the_same(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        with held_step(monkeypatch, rows, "mark_deleting") as held:
            await hang_up_in(node, held, f"DELETE /v1/jobs/{identifier}".encode())
        await node.until(lambda: kinds(place) == [])


async def test_who_hangs_up_has_the_job_cancelled_and_its_worker_stopped_all_the_same(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        worker, identifier, job = await at_work(node)
        with held_step(monkeypatch, sealed, "write") as held:
            await hang_up_in(node, held, f"PATCH /v1/jobs/{identifier}".encode(), CANCEL)
        assert (await worker.next_frame()).lease == job.frame.lease  # not wanted any more
        await node.until(lambda: kinds(place) == [".result"])
        assert (await node.get(f"/v1/jobs/{identifier}")).json["status"] == "cancelled"


async def test_a_caller_who_hung_up_keeps_the_front_door_until_the_job_is_gone(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        with held_step(monkeypatch, rows, "mark_deleting") as held:
            await hang_up_in(node, held, f"DELETE /v1/jobs/{identifier}".encode())
            stopping = node.stop()
            await as_far_as_it_gets(stopping)
        await stopping
    assert kinds(place) == []


@pytest.mark.parametrize(("method", "body"), [("DELETE", b""), ("PATCH", CANCEL)])
async def test_a_worker_is_stopped_though_the_disk_refuses_to_destroy_the_image(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch, method: str, body: bytes
) -> None:
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with gateway_node(jobs=place) as node:
        worker, identifier, job = await at_work(node)
        with monkeypatch.context() as patched:
            patched.setattr(sealed, "destroy", broken)
            reply = await change(node, identifier, method, body)
            assert reply.status == (503 if method == "DELETE" else 200)
            assert (await worker.next_frame()).lease == job.frame.lease  # not wanted any more


async def test_a_deletion_that_the_disk_refuses_for_a_while_is_finished_later(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "EXPIRY_SECONDS", 0.02)

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        with monkeypatch.context() as patched:
            patched.setattr(sealed, "destroy", broken)
            reply = await change(node, identifier, "DELETE")
            assert (reply.status, reply.error) == (503, "jobs_unavailable")
            assert (await node.get(f"/v1/jobs/{identifier}")).status == 404
            await node.until(lambda: f"{identifier[:8]}* can't be deleted now" in caplog.text)
        await node.until(lambda: kinds(place) == [])
    assert identifier not in caplog.text
