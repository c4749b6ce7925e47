# SPDX-License-Identifier: Apache-2.0
"""Durable jobs over HTTP, with workers' real frames and a store on disk."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds
from gpuwarden.control.states import GatewayJobs
from gpuwarden.gateway.buffers import BufferPool
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.jobs import feeder
from gpuwarden.gateway.jobs.keys import NoKeyError, StoreKey
from gpuwarden.gateway.jobs.service import JobPlace, Jobs
from gpuwarden.gateway.jobs.values import JobStatus
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.messages import Result
from gpuwarden.gateway.pause import Pause
from gpuwarden.gateway.peers import Peer
from gpuwarden.gateway.settings import GatewaySettings
from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.durable_jobs import KEY, finished, kinds, store_of, submit
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node

pytestmark = pytest.mark.usefixtures("api_key")

MIB = 1 << 20


def shown(node: GatewayNode) -> GatewayJobs:
    jobs = node.snapshot().jobs
    assert jobs is not None
    return jobs


async def test_a_job_waits_for_a_worker_and_keeps_its_answer(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        small = await submit(node, b"small", "?question=what")
        large = await submit(node, b"x" * 3 * MIB)
        waiting = (await node.get(f"/v1/jobs/{large}")).json
        assert (waiting["status"], waiting["progress"]["jobs_ahead"]) == ("queued", 1)
        await node.busy_worker()
        for identifier, length in ((small, 5), (large, 3 * MIB)):
            job = await finished(node, identifier)
            assert job["status"] == "succeeded"
            assert job["result"]["answer"]["bytes"] == length
            assert job["executions"] == 1
        await node.until(lambda: kinds(place) == [".result", ".result"])


async def test_the_more_important_job_goes_first_and_people_go_before_jobs(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        low = await submit(node, b"low", "?priority=-5")
        high = await submit(node, b"high", "?priority=7")
        worker = await node.busy_worker(auto=False, max_batch=1)
        running, prepared = await worker.next_job(), await worker.next_job()
        assert (running.image, prepared.image) == (b"high", b"low")
        person = asyncio.create_task(node.post(b"person"))
        cancel = await worker.next_frame()
        assert (cancel.request, cancel.lease) == (prepared.frame.request, prepared.frame.lease)
        worker.fail(prepared, "returned")
        asked = await worker.next_job()
        assert asked.image == b"person"
        worker.answer(running)
        worker.answer(asked)
        assert (await person).status == 200
        worker.answer(await worker.next_job())
        assert (await finished(node, high))["status"] == "succeeded"
        assert (await finished(node, low))["executions"] == 1


async def test_people_never_feel_what_waits_on_disk(place: JobPlace) -> None:
    async with gateway_node(jobs=place, queue_limit=2) as node:
        for number in range(20):
            await submit(node, b"%d" % number)
        worker = await node.busy_worker(auto=False, max_batch=1)
        await worker.next_job()
        await node.until(lambda: store_of(node).counts[JobStatus.RUNNING] == 4)  # leased ahead
        # The worker has one, and the next one lies ready there: so their documents tell it.
        await node.until(lambda: shown(node).running == 2)
        assert (shown(node).queued, node.snapshot().queue_depth) == (18, 0)
        listed = (await node.get("/v1/jobs?status=running", **KEY)).json
        assert [one["status"] for one in listed["data"]] == ["running"] * 2
        assert (listed["counts"]["running"], listed["counts"]["queued"]) == (2, 18)
        worker.answers_by_itself = True


async def test_a_job_that_waits_for_a_buffer_gets_it_when_it_is_free(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "RETRY_SECONDS", 60.0)  # nothing polls
    async with gateway_node(jobs=place, pool_bytes=2 * MIB, images_bytes=2 * MIB) as node:
        identifier = await submit(node, b"j" * MIB)
        sent = [await node.post(b"i" * MIB, path="/v1/images") for _ in range(2)]
        await node.busy_worker()
        await node.until(lambda: node.service.jobs.opened is not None and held_back(node))
        path = f"/v1/images/{sent[0].json['id']}"
        assert (await node.post(b"", path=path, method="DELETE")).status == 200
        assert (await finished(node, identifier))["status"] == "succeeded"


def held_back(node: GatewayNode) -> bool:
    """Whether a job was claimed and has no place in memory."""
    opened = node.service.jobs.opened
    assert opened is not None
    return any(one.job is None for one in opened.feeder.running.values())


async def test_listing_changing_and_deleting_need_the_key_and_reading_the_id_alone(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        first, second = await submit(node, b"1"), await submit(node, b"2")
        for method, path in (
            ("GET", "/v1/jobs"),
            ("DELETE", f"/v1/jobs/{first}"),
            ("PATCH", f"/v1/jobs/{first}"),
        ):
            reply = await node.post(b"", path=path, media_type=None, method=method)
            assert (reply.status, reply.error) == (401, "authentication_required")
        page = await node.get("/v1/jobs?limit=1", **KEY)
        assert [job["id"] for job in page.json["data"]] == [first]
        assert page.json["has_more"] is True
        rest = await node.get(f"/v1/jobs?after={first}&status=queued", **KEY)
        assert [job["id"] for job in rest.json["data"]] == [second]
        assert rest.json["counts"]["queued"] == 2
        assert (await node.get("/v1/jobs?status=lost", **KEY)).status == 400
        assert (await node.get(f"/v1/jobs/{'0' * 32}")).status == 404
        assert (await node.get("/v1/jobs/..")).status == 404


async def test_a_page_goes_on_where_the_one_before_ended_whatever_has_gone_meanwhile(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        first, second, third = [await submit(node, one) for one in (b"1", b"2", b"3")]
        page = await node.get("/v1/jobs?limit=2", **KEY)
        assert [job["id"] for job in page.json["data"]] == [first, second]
        assert (await change(node, second, "DELETE")).status == 200
        assert (await node.get(f"/v1/jobs?after={second}", **KEY)).status == 404
        rest = await node.get(f"/v1/jobs?after={page.json['next']}", **KEY)
        assert [job["id"] for job in rest.json["data"]] == [third]
        assert (rest.json["has_more"], rest.json["next"]) == (False, None)
        for nothing in ("", "-1", "9" * 19, "%D9%A1", "x"):
            assert (await node.get(f"/v1/jobs?after={nothing}", **KEY)).status == 404


async def change(node: GatewayNode, identifier: str, method: str, body: bytes = b"") -> Reply:
    return await node.post(body, path=f"/v1/jobs/{identifier}", method=method, headers=KEY)


async def test_a_job_about_an_image_that_was_sent_before_keeps_a_copy(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        sent = (await node.post(b"p" * MIB, path="/v1/images")).json
        by_query = await submit(node, b"", f"?image={sent['url']}&question=q&priority=1")
        form = (
            b'--b\r\nContent-Disposition: form-data; name="priority"\r\n\r\n2\r\n'
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
            + sent["url"].encode()
            + b"\r\n--b--"
        )
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        by_form = await node.post(form, path="/v1/jobs", headers=kind)
        assert (by_form.status, by_form.json["bytes"], by_form.json["priority"]) == (202, MIB, 2)
        await node.post(b"", path=f"/v1/images/{sent['id']}", method="DELETE", media_type=None)
        gone = await node.post(b"", path=f"/v1/jobs?image={sent['url']}", media_type=None)
        assert (gone.status, gone.error) == (404, "image_not_found")
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        await node.busy_worker()
        for identifier in (by_form.json["id"], by_query):
            job = await finished(node, identifier)
            assert job["result"]["answer"]["bytes"] == MIB


async def test_a_copy_of_an_image_needs_room_on_the_disk_as_well(place: JobPlace) -> None:
    async with gateway_node(jobs=place, job_disk_limit_bytes=MIB) as node:
        sent = (await node.post(b"p" * MIB, path="/v1/images")).json
        full = await node.post(b"", path=f"/v1/jobs?image={sent['url']}", media_type=None)
        assert (full.status, full.error) == (507, "insufficient_storage")
        assert list((place.folder / "files").iterdir()) == []


async def test_a_pause_refuses_new_jobs_and_lets_accepted_ones_go_on(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        known = await submit(node, b"before", **{"Idempotency-Key": "one"})
        node.service.dispatcher.pause = Pause(
            boot_id=boot_id(),
            until_boottime_nanoseconds=boottime_nanoseconds() + 600 * 10**9,
            until_unix_microseconds=1_700_000_000_000_000,
        )
        refused = await node.post(b"after", path="/v1/jobs")
        assert (refused.status, refused.error) == (503, "paused")
        assert 590 <= int(refused.headers["retry-after"]) <= 600
        repeat = await node.post(b"before", path="/v1/jobs", headers={"Idempotency-Key": "one"})
        assert (repeat.status, repeat.json["id"]) == (200, known)
        await node.busy_worker()
        assert (await finished(node, known))["status"] == "succeeded"


CANCEL = json.dumps({"status": "cancelled"}).encode()


async def test_a_deleted_job_leaves_nothing_and_its_worker_stops(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        running = await submit(node, b"r" * MIB)
        job = await worker.next_job()
        reply = await change(node, running, "DELETE")
        assert reply.json == {"id": running, "object": "job", "deleted": True}
        assert (await worker.next_frame()).lease == job.frame.lease
        assert (await node.get(f"/v1/jobs/{running}")).status == 404
        assert list((place.folder / "files").iterdir()) == []
        worker.answer(job)  # too late
        worker.answers_by_itself = True
        done = await submit(node, b"done")
        await finished(node, done)
        assert (await change(node, done, "DELETE")).status == 200
        assert list((place.folder / "files").iterdir()) == []


async def test_a_cancelled_job_keeps_its_row_and_loses_its_image(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        waiting = await submit(node)
        cancelled = await change(node, waiting, "PATCH", CANCEL)
        assert cancelled.json["status"] == "cancelled"
        assert cancelled.json["error"]["type"] == "job_cancelled"
        again = await change(node, waiting, "PATCH", CANCEL)
        assert (again.status, again.error) == (409, "job_finished")
        assert (await change(node, waiting, "PATCH", b'{"status": "done"}')).status == 400
        assert not list((place.folder / "files").glob("*.body"))


async def test_what_no_job_can_be_is_refused_by_name(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        for query, headers, status, param in (
            ("?priority=high", {}, 400, "priority"),
            ("?priority=101", {}, 400, "priority"),
            ("?colour=red", {}, 400, "colour"),
            ("", {"Idempotency-Key": "x" * 256}, 400, "Idempotency-Key"),
            ("", {"Content-Type": "text/plain"}, 415, "Content-Type"),
        ):
            reply = await node.post(b"i", path=f"/v1/jobs{query}", headers=headers)
            assert (reply.status, reply.json["error"]["param"]) == (status, param)
        boundary = b'--b\r\nContent-Disposition: form-data; name="'
        form = b"".join(
            boundary + name + b'"\r\n\r\n' + value + b"\r\n"
            for name, value in ((b"image", b"pixels"), (b"question", b"q"), (b"priority", b"3"))
        )
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        reply = await node.post(form + b"--b--", path="/v1/jobs", headers=kind)
        assert (reply.status, reply.json["priority"], reply.json["bytes"]) == (202, 3, 6)


async def test_the_disk_is_never_filled(place: JobPlace) -> None:
    async with gateway_node(jobs=place, job_disk_limit_bytes=2 * MIB) as node:
        await submit(node, b"a" * MIB)
        full = await node.post(b"b" * MIB, path="/v1/jobs")
        assert (full.status, full.error) == (507, "insufficient_storage")
        assert "disk_limit_bytes" in full.json["error"]["message"]
    async with gateway_node(jobs=place, job_disk_free_share=1.0) as node:
        full = await node.post(b"b", path="/v1/jobs")
        assert (full.status, full.error) == (507, "insufficient_storage")
        await node.busy_worker()
        await node.until(lambda: store_of(node).counts[JobStatus.SUCCEEDED] == 1)


async def test_an_image_that_kills_workers_is_given_up_and_set_aside(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        poison = await submit(node, b"poison")
        for death in range(3):
            worker = await node.busy_worker(auto=False)
            assert (await worker.next_job()).image == b"poison"
            if death == 1:
                row = await store_of(node).find(poison)
                assert row is not None
                assert row.deaths == 1
            worker.close()
        job = await finished(node, poison)
        assert (job["status"], job["error"]["type"]) == ("failed", "worker_crashed")
        refused = await node.post(b"poison", path="/v1/jobs")
        assert (refused.status, refused.error) == (422, "image_set_aside")
        await submit(node, b"wholesome")


async def test_an_engines_error_is_the_jobs_result(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        worker.fail(await worker.next_job(), "bad_image", "no DICOM")
        job = await finished(node, identifier)
        assert job["error"] == {"type": "bad_image", "message": "no DICOM", "param": None}


async def test_without_its_key_the_front_door_serves_and_jobs_say_why(tmp_path: Path) -> None:
    def none() -> StoreKey:
        raise NoKeyError("there is no credential")

    async with gateway_node(jobs=JobPlace(tmp_path, none)) as node:
        await node.worker()
        reply = await node.post(b"image", path="/v1/jobs")
        assert (reply.status, reply.error) == (503, "jobs_unavailable")
        assert "no credential" in reply.json["error"]["message"]
        assert (await node.post(b"image")).status == 200
        assert shown(node).problem.endswith("there is no credential")


async def test_results_go_when_their_time_is_over(place: JobPlace) -> None:
    async with gateway_node(jobs=place, job_keep_seconds=0.0) as node:
        await node.worker()
        identifier = await submit(node)
        await finished(node, identifier)
        await store_of(node).expire(0.0)
        assert (await node.get(f"/v1/jobs/{identifier}")).status == 404
        assert list((place.folder / "files").iterdir()) == []


async def test_a_worker_hands_over_what_a_former_front_door_did_not_live_to_take(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, b"long")
        worker = await node.busy_worker(auto=False)
        ticket = (await worker.next_job()).frame.meta["ticket"]
        assert ticket == f"{identifier}:1"
    async with gateway_node(jobs=place) as node:
        worker = await node.busy_worker(auto=False)
        again = await worker.next_job()
        assert again.frame.meta["ticket"] == f"{identifier}:2"
        meta = {"ok": True, "answer": {"said": "nothing"}, "ticket": ticket}
        for wrong in (f"{'0' * 32}:1", f"{identifier}:9", "nonsense"):
            worker.send(Frame(FrameType.RESULT, meta=meta | {"ticket": wrong, "answer": {}}))
        worker.send(Frame(FrameType.RESULT, meta=meta))
        assert (await worker.next_frame()).lease == again.frame.lease  # not wanted any more
        job = await finished(node, identifier)
        assert job["result"]["answer"] == {"said": "nothing"}
        worker.answer(again)
        assert (await finished(node, identifier))["result"]["answer"] == {"said": "nothing"}


async def test_a_result_that_comes_before_the_store_is_open_is_kept_for_it(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, b"long")
        worker = await node.busy_worker(auto=False)
        ticket = (await worker.next_job()).frame.meta["ticket"]
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(GatewaySettings(), BufferPool(MIB, loop.call_soon, loop.call_later))
    jobs = Jobs(place, dispatcher, lambda: None)
    link = WorkerLink(1, Peer(0, os.getpid(), 0), dispatcher)
    dispatcher.on_handover(ticket, link, Result(ok=True, answer={"said": "in time"}), b"")
    await jobs.open()
    assert jobs.opened is not None
    await jobs.opened.until_finished(identifier, 8)
    result = await jobs.opened.store.result(identifier)
    assert result.answer == {"said": "in time"}
    await jobs.close(1)
