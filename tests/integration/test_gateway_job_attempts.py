# SPDX-License-Identifier: Apache-2.0
"""How often a durable job was executed, and which of its failures count towards its end."""

import asyncio
import os
from pathlib import Path

import pytest

from gpuwarden.gateway.jobs import feeder
from gpuwarden.gateway.jobs.service import JobPlace
from gpuwarden.gateway.jobs.values import JobRow, StoreFullError
from tests.integration.durable_jobs import finished, store_of, submit
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import real_worker

MIB = 1 << 20


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "RETRY_SECONDS", 0.01)


async def row_of(node: GatewayNode, identifier: str) -> JobRow:
    row = await store_of(node).find(identifier)
    assert row is not None
    return row


async def test_a_job_whose_worker_dies_when_it_has_worked_says_that_it_was_repeated(
    place: JobPlace, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    options = {"diary": str(diary)}
    engine = "model_classes:Diarist"
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, question="json 60")
        async with real_worker(node, engine=engine, options=options | {"die_in_end": 1}) as doomed:
            await doomed.process.wait()
        async with real_worker(node, engine=engine, options=options):
            job = await finished(node, identifier)
    assert job["status"] == "succeeded"
    assert job["executions"] == len(diary.read_text().splitlines()) == 2


async def test_a_repeat_is_on_record_before_a_worker_gets_it(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[int] = []

    async def full(*_: object) -> None:
        refusals.append(1)
        raise StoreFullError("no room on disk")

    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, question="json 60")
        doomed = await node.busy_worker(auto=False)
        await doomed.next_job()
        worker = await node.worker(1, auto=False)
        with monkeypatch.context() as patched:
            patched.setattr(store_of(node), "note_repeat", full)
            doomed.close()
            await node.until(lambda: len(refusals) > 2)
            assert worker.jobs.empty()
        again = await worker.next_job()
        row = await row_of(node, identifier)
        assert (row.executions, row.deaths) == (2, 1)
        worker.answer(again)
        assert (await finished(node, identifier))["executions"] == 2


@pytest.mark.parametrize(("answer", "executions"), [("returned", 1), ("cancelled", 2)])
async def test_a_job_that_makes_way_is_a_repeat_only_if_it_may_have_begun(
    place: JobPlace, answer: str, executions: int
) -> None:
    async with gateway_node(jobs=place) as node:
        await submit(node, question="json 60")
        identifier = await submit(node, question="json 60")
        worker = await node.busy_worker(auto=False, max_batch=1)
        running, prepared = await worker.next_job(), await worker.next_job()
        node.service.dispatcher.drain(0, drained=True)
        assert (await worker.next_frame()).lease == prepared.frame.lease
        worker.fail(prepared, answer)
        worker.answer(running)
        await node.until(lambda: not node.service.dispatcher.queue.seats[1].batches)
        node.service.dispatcher.drain(0, drained=False)
        worker.answer(await worker.next_job())
        assert (await finished(node, identifier))["executions"] == executions


async def test_what_a_worker_gives_back_unbegun_was_executed_once(
    place: JobPlace, tmp_path: Path
) -> None:
    diary, gate = tmp_path / "diary", tmp_path / "gate"
    os.mkfifo(gate)
    go_on = os.open(gate, os.O_RDWR)
    options = {"diary": str(diary), "wait_in_end": str(gate)}
    settings = {"engine": "model_classes:Diarist", "options": options, "max_batch": 1}
    async with gateway_node(jobs=place) as node, real_worker(node, **settings):
        jobs = [await submit(node, question="json 60") for _ in range(2)]
        (seat,) = node.service.dispatcher.queue.seats.values()
        await node.until(lambda: seat.outstanding == 2)
        node.service.dispatcher.drain(0, drained=True)
        await node.until(lambda: seat.outstanding == 1)
        node.service.dispatcher.drain(0, drained=False)
        os.write(go_on, b"..")
        assert [(await finished(node, one))["executions"] for one in jobs] == [1, 1]
    os.close(go_on)
    assert len(diary.read_text().splitlines()) == 2


async def test_a_job_whose_result_finds_no_room_waits_for_it_however_often(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "ROOM_SECONDS", 60.0)  # nothing polls
    async with gateway_node(jobs=place, results_bytes=MIB) as node:
        worker = await node.busy_worker(auto=False)
        identifier = await submit(node, question="json 60")
        job = await worker.next_job()
        for _ in range(feeder.TRIES_LIMIT + 1):
            reading = asyncio.create_task(node.post(b"person"))
            persons = await worker.next_job()
            assert "size" in (await worker.borrow(persons, MIB)).meta
            refused = await worker.borrow(job, MIB)
            worker.fail(job, refused.meta["error"]["type"])
            await node.until(lambda: waits_for_room(node))
            worker.hand_in(persons, b"mask")
            assert (await reading).status == 200
            job = await worker.next_job()
        row = await row_of(node, identifier)
        assert (row.tries, row.deaths) == (0, 0)
        worker.answer(job)
        assert (await finished(node, identifier))["status"] == "succeeded"


async def test_jobs_that_wait_for_room_keep_no_other_job_out(place: JobPlace) -> None:
    async with gateway_node(jobs=place, results_bytes=MIB) as node:
        worker = await node.worker(auto=False, max_batch=1)
        reading = asyncio.create_task(node.post(b"person"))
        persons = await worker.next_job()
        assert "size" in (await worker.borrow(persons, MIB)).meta
        opened = node.service.jobs.opened
        assert opened is not None
        for _ in range(opened.feeder.look_ahead()):
            await submit(node, b"large")
        small = await submit(node, b"small")
        while (job := await worker.next_job()).image != b"small":
            worker.fail(job, (await worker.borrow(job, MIB)).meta["error"]["type"])
        worker.answer(job)
        assert (await finished(node, small))["status"] == "succeeded"
        worker.hand_in(persons, b"mask")
        assert (await reading).status == 200


def waits_for_room(node: GatewayNode) -> bool:
    opened = node.service.jobs.opened
    assert opened is not None
    return opened.feeder._for_results.locked()


async def test_executions_that_took_too_long_are_no_deaths_of_workers(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, question="json 60")
        worker = await node.worker(auto=False)
        for _ in range(2):
            worker.fail(await worker.next_job(), "execution_timeout")
        await worker.next_job()
        assert not any(seat.exclusive for seat in node.service.dispatcher.queue.seats.values())
        worker.close()
        survivor = await node.worker(auto=False)
        job = await survivor.next_job()
        row = await row_of(node, identifier)
        assert (row.tries, row.deaths) == (2, 1)
        survivor.answer(job)
        assert (await finished(node, identifier))["status"] == "succeeded"


async def test_an_image_is_not_set_aside_for_the_death_of_a_decoding_process(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        identifier = await submit(node, question="json 60")
        doomed = await node.worker(auto=False)
        await doomed.next_job()
        doomed.close()
        worker = await node.worker(auto=False)
        worker.fail(await worker.next_job(), "worker_crashed")
        job = await finished(node, identifier)
        assert (job["status"], job["error"]["type"]) == ("failed", "worker_crashed")
        await submit(node, question="json 60")
