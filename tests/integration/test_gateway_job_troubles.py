# SPDX-License-Identifier: Apache-2.0
"""Durable jobs while the disk fails, results are damaged, or several wait for the same end."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.gateway.jobs import feeder, sealed
from gpuwarden.gateway.jobs.service import JobPlace
from gpuwarden.gateway.jobs.values import JobStatus, StoreFullError
from gpuwarden.worker.compact import compact_json
from gpuwarden.worker.frames import encode
from gpuwarden.worker.nesting import NESTING_LIMIT
from tests.integration.durable_jobs import store_of, submit
from tests.integration.gateway_node import GatewayNode, gateway_node, read_reply
from tests.integration.gateway_peer import GatewayPeer, ReceivedJob
from tests.integration.model_classes import nested

MIB = 1 << 20


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "RETRY_SECONDS", 0.01)


def is_waited_for(node: GatewayNode, identifier: str) -> bool:
    assert node.service.jobs.opened is not None
    return identifier in node.service.jobs.opened._finished


def counted(node: GatewayNode, status: JobStatus) -> int:
    return store_of(node).counts[status]


async def ended_by(
    node: GatewayNode, reading: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> str:
    """By which error a job ends whose image is read that way."""
    identifier = await submit(node)
    with monkeypatch.context() as patched:
        patched.setattr(sealed, "read", reading)
        await node.busy_worker()
        await node.until(lambda: counted(node, JobStatus.FAILED) == 1)
    error: str = (await node.get(f"/v1/jobs/{identifier}")).json["error"]["type"]
    return error


async def test_a_job_whose_image_can_not_be_opened_for_a_while_is_tried_again(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []

    def too_many_files(path: Path, *_: object) -> None:
        failures.append(path.name)
        raise OSError(errno.EMFILE, "Too many open files")

    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        with monkeypatch.context() as patched:
            patched.setattr(sealed, "read", too_many_files)
            await node.busy_worker()
            await node.until(lambda: len(failures) > 4)
        job = (await node.get(f"/v1/jobs/{identifier}?wait=8")).json
        assert (job["status"], job["executions"]) == ("succeeded", 1)


@pytest.mark.parametrize(
    ("number", "tries"),
    [(errno.EIO, 3), (errno.EBADMSG, 1), (errno.EACCES, 1), (errno.EISDIR, 1), (errno.EUCLEAN, 1)],
)
async def test_a_job_whose_image_the_disk_has_lost_ends_and_says_so(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    refusals: list[int] = []

    def broken(*_: object) -> None:
        refusals.append(number)
        raise OSError(number, os.strerror(number))

    async with gateway_node(jobs=place) as node:
        assert await ended_by(node, broken, monkeypatch) == "body_unreadable"
    assert len(refusals) == tries


async def test_a_database_that_breaks_while_it_is_open_is_told_of_once(
    place: JobPlace, caplog: pytest.LogCaptureFixture
) -> None:
    def damage(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE jobs SET status = 'quiet'")

    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        jobs = node.service.jobs.published()
        assert (jobs.problem, jobs.queued) == ("", 1)
        await store_of(node).database.write(damage)
        for _ in range(2):
            reply = await node.get(f"/v1/jobs/{identifier}")
            assert (reply.status, reply.error) == (503, "jobs_unavailable")
        problem = node.service.jobs.published().problem
        assert problem.startswith("jobs can't be kept: their database is broken")
        assert "systemctl restart medgemma-gateway" in problem
        assert caplog.text.count(problem) == 1
    async with gateway_node(jobs=place) as node:
        await node.busy_worker()
        assert (await node.get(f"/v1/jobs/{identifier}?wait=8")).json["status"] == "succeeded"
        assert node.service.jobs.published().problem == ""


async def test_a_job_whose_image_the_disk_refuses_for_a_moment_is_answered(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sealed.read
    refusals: list[int] = []

    def loose(*arguments: Any) -> object:
        if len(refusals) < 2:
            refusals.append(errno.EIO)
            raise OSError(errno.EIO, "Input/output error")
        return read(*arguments)

    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        monkeypatch.setattr(sealed, "read", loose)
        await node.busy_worker()
        job = (await node.get(f"/v1/jobs/{identifier}?wait=8")).json
        assert (job["status"], job["executions"]) == ("succeeded", 1)


async def test_images_that_can_not_be_read_keep_no_other_job_from_its_answer(
    place: JobPlace,
) -> None:
    """More of them than are in memory at a time, and all before it."""
    async with gateway_node(jobs=place) as node:
        bad = [await submit(node, query="?priority=9") for _ in range(feeder.LOOK_AHEAD_LIMIT)]
        good = await submit(node)
        for identifier in bad:
            path = store_of(node).body_path(identifier)
            path.unlink()
            path.mkdir()
        await node.busy_worker()
        job = (await node.get(f"/v1/jobs/{good}?wait=8")).json
        assert job["status"] == "succeeded"
        await node.until(lambda: counted(node, JobStatus.FAILED) == len(bad))


async def test_a_job_on_which_we_fail_ourselves_ends_after_three_tries(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(*_: object) -> None:
        raise ValueError("DOE^JOHN")

    async with gateway_node(jobs=place) as node:
        assert await ended_by(node, faulty, monkeypatch) == "internal_error"
    assert caplog.text.count("a job has failed here: ValueError at") == 3
    assert "DOE" not in caplog.text


async def test_an_end_on_which_we_fail_ourselves_is_an_error_of_its_job(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, tries = sealed.write, []

    def faulty_once(*arguments: Any) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise KeyError("DOE^JOHN")
        return write(*arguments)

    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        monkeypatch.setattr(sealed, "write", faulty_once)
        await node.busy_worker()
        job = (await node.get(f"/v1/jobs/{identifier}?wait=8")).json
        assert (job["status"], job["error"]["type"]) == ("failed", "engine_error")
    assert "a job's result can't be stored: KeyError at" in caplog.text
    assert "DOE" not in caplog.text


async def test_an_answer_is_kept_until_the_folder_for_it_is_back(
    place: JobPlace, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        job = await worker.next_job()
        away = (place.folder / "files").rename(place.folder / "away")
        worker.answer(job)
        await node.until(lambda: "a job's result can't be stored, trying on" in caplog.text)
        away.rename(place.folder / "files")
        assert (await node.get(f"/v1/jobs/{identifier}?wait=8")).json["executions"] == 1
        assert counted(node, JobStatus.SUCCEEDED) == 1


async def test_an_answer_as_deep_as_it_may_be_is_kept_as_it_is(place: JobPlace) -> None:
    answer = nested(NESTING_LIMIT)
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        worker.answer(await worker.next_job(), answer=answer)
        reply = await node.get(f"/v1/jobs/{identifier}?wait=8")
        assert b'"status":"succeeded"' in reply.body
        assert compact_json(answer).encode() in reply.body


async def test_a_job_that_somebody_lost_hold_of_waits_again_though_no_other_comes(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "EXTEND_SECONDS", 0.02)
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        assert node.service.jobs.opened is not None
        await node.service.jobs.opened.store.claim(1, 0.0)
        await node.busy_worker()
        job = (await node.get(f"/v1/jobs/{identifier}?wait=8")).json
        assert job["status"] == "succeeded"


async def test_a_wrong_priority_is_told_before_the_body_is_sent(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        reader, writer = await node.connect()
        head = b"POST /v1/jobs?priority=high HTTP/1.1\r\nHost: localhost\r\n"
        writer.write(head + b"Content-Length: 9\r\n\r\n")
        reply = await read_reply(reader)
        assert (reply.status, reply.json["error"]["param"]) == (400, "priority")
        writer.close()


async def test_a_job_that_can_not_be_given_back_is_given_back_later(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        assert node.service.jobs.opened is not None
        store = node.service.jobs.opened.store
        job, refusals = await worker.next_job(), []

        async def full(*_: object, **__: object) -> bool:
            refusals.append(1)
            raise StoreFullError("no room on disk")

        with monkeypatch.context() as patched:
            patched.setattr(store, "nack", full)
            worker.fail(job, "execution_timeout")
            await node.until(lambda: len(refusals) > 2)
        worker.answer(await worker.next_job())
        assert (await node.get(f"/v1/jobs/{identifier}?wait=8")).json["status"] == "succeeded"


async def test_an_answer_that_is_no_json_is_an_error_of_its_caller_and_its_job(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        asked = asyncio.create_task(node.post(b"image"))
        answer_without_end(worker, await worker.next_job())
        assert ((await asked).status, (await asked).error) == (500, "internal_error")
        identifier = await submit(node)
        answer_without_end(worker, await worker.next_job())
        job = (await node.get(f"/v1/jobs/{identifier}?wait=8")).json
        assert (job["status"], job["error"]["type"]) == ("failed", "engine_error")
        worker.answers_by_itself = True
        assert (await node.post(b"image")).status == 200


def answer_without_end(worker: GatewayPeer, job: ReceivedJob) -> None:
    """With a number that JSON can write and not hold; a worker of ours never sends it."""
    record = encode(worker.result_of(job, answer={"x": "large"}))
    worker.send_raw(record.replace(b'"large"', b" 1e9999"))


async def test_all_who_wait_for_a_job_hear_of_its_end_though_one_has_left(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        job = await worker.next_job()
        waiting = asyncio.create_task(node.get(f"/v1/jobs/{identifier}?wait=60"))
        await node.until(lambda: is_waited_for(node, identifier))
        assert (await node.get(f"/v1/jobs/{identifier}?wait=1")).json["status"] == "running"
        worker.answer(job)
        assert (await waiting).json["status"] == "succeeded"


async def test_who_waits_for_a_job_is_not_answered_when_it_is_merely_tried_again(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        worker = await node.worker(auto=False)
        identifier = await submit(node)
        job = await worker.next_job()
        waiting = asyncio.create_task(node.get(f"/v1/jobs/{identifier}?wait=60"))
        await node.until(lambda: is_waited_for(node, identifier))
        worker.fail(job, "execution_timeout")
        again = await worker.next_job()
        worker.answer(again)
        assert (await waiting).json["status"] == "succeeded"


async def test_who_waits_for_a_job_does_not_keep_the_front_door_from_its_end(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node)
        waiting = asyncio.create_task(node.get(f"/v1/jobs/{identifier}?wait=60"))
        await node.until(lambda: is_waited_for(node, identifier))
        async with asyncio.timeout(5):
            await node.stop()
        reply = await waiting
        assert (reply.status, reply.error) == (503, "jobs_unavailable")
        assert "retry-after" in reply.headers


async def test_a_damaged_answer_is_told_as_such_and_no_log_has_its_id(
    place: JobPlace, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_node(jobs=place) as node:
        await node.worker()
        keyed: dict[str, Any] = {
            "path": "/v1/jobs",
            "headers": {"Idempotency-Key": "accession-4711"},
        }
        identifier = (await node.post(b"image", **keyed)).json["id"]
        await node.get(f"/v1/jobs/{identifier}?wait=8")
        (file,) = (place.folder / "files").glob("*.result")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        for path in (f"/v1/jobs/{identifier}", f"/v1/results/{identifier}"):
            reply = await node.get(path)
            assert (reply.status, reply.error) == (500, "result_unreadable"), path
        repeat = await node.post(b"image", **keyed)
        assert (repeat.status, repeat.error) == (500, "result_unreadable")
        assert node.service.dispatcher.statistics.rejected == 0  # it was accepted
    # The whole id would be the right to read it.
    assert f"{identifier[:8]}*.result" in caplog.text
    assert identifier not in caplog.text
