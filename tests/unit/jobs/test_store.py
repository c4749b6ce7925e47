# SPDX-License-Identifier: Apache-2.0
"""Leases, priorities, deletion: the store without a front door."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwarden.gateway.jobs import promises
from gpuwarden.gateway.jobs.budget import RESULT_BYTES, DiskBudget, DiskRoom
from gpuwarden.gateway.jobs.sealed import sealed_bytes
from gpuwarden.gateway.jobs.store import DiskStore
from gpuwarden.gateway.jobs.values import (
    JobResult,
    JobStatus,
    JobStoreError,
    Lease,
    StoreFullError,
)
from tests.unit.jobs.stores import ANSWER, job, opened, submitted

USUAL_META_BYTES = 1024  # of a file, in sealed_bytes


async def test_the_more_important_and_then_the_older_is_claimed_first(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    low, first = await submitted(store, b"1", b"2")
    await store.submit(job(b"3", priority=5))
    high = (await store.submit(job(b"4", priority=9)))[0].id
    leases = await store.claim(3, 60.0)
    assert [lease.priority for lease in leases] == [9, 5, 0]
    assert (leases[0].id, leases[2].id) == (high, low)
    assert [lease.id for lease in await store.claim(9, 60.0)] == [first]
    assert not store.has_work
    await store.close()


async def test_a_result_counts_once_and_under_its_own_lease_alone(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    (former,) = await store.claim(1, 60.0)
    assert await store.nack(former, 0, begun=True)
    (lease,) = await store.claim(1, 60.0)
    assert (lease.executions, lease.token) == (2, former.token + 1)
    assert not await store.ack(former, ANSWER)
    assert await store.ack(lease, ANSWER)
    assert not await store.ack(lease, ANSWER)
    assert not await store.nack(lease, 0, begun=True)
    assert (await store.result(id)).answer == {"said": "nothing"}
    assert [file.suffix for file in store.files.iterdir()] == [".result"]
    await store.close()


async def test_what_no_worker_had_was_not_executed(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await submitted(store, b"1")
    (lease,) = await store.claim(1, 60.0)
    await store.nack(lease, 0, begun=False)
    (again,) = await store.claim(1, 60.0)
    assert again.executions == 1
    await store.close()


async def test_a_lease_that_nobody_extends_ends(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await submitted(store, b"1", b"2")
    forgotten, held = await store.claim(2, 0.0)
    assert await store.extend([held], 60.0) == {held.id}
    (lease,) = await store.claim(2, 60.0)
    assert lease.id == forgotten.id
    assert await store.extend([forgotten, held], 60.0) == {held.id}
    await store.close()


async def test_figures_follow_every_change(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    first, second, third = await submitted(store, b"1", b"2", b"3")
    await store.cancel(third)
    await store.delete(second)
    (lease,) = await store.claim(1, 60.0)
    assert (store.counts[JobStatus.RUNNING], store.counts[JobStatus.QUEUED]) == (1, 0)
    await store.ack(lease, ANSWER)
    on_disk = sum(file.stat().st_size for file in store.files.iterdir())
    assert store.counts.files_bytes == on_disk
    assert (store.counts[JobStatus.SUCCEEDED], store.counts[JobStatus.CANCELLED]) == (1, 1)
    before = store.counts
    await store.look_again()
    assert store.counts == before
    assert await store.find(first) is not None
    await store.close()


async def test_what_is_leased_and_in_no_workers_hands_is_listed_and_counted_as_queued(
    tmp_path: Path,
) -> None:
    store = await opened(tmp_path)
    first, second, third = await submitted(store, b"1", b"2", b"3")
    await store.claim(2, 60.0)

    async def listed(*statuses: JobStatus) -> list[str]:
        return [row.id for row in await store.page(statuses, 0, 10, [first])]

    assert await listed(JobStatus.RUNNING) == [first]
    assert await listed(JobStatus.QUEUED) == [second, third]
    assert await listed(JobStatus.QUEUED, JobStatus.RUNNING) == [first, second, third]
    shown = store.counts.shown(1)
    assert (shown[JobStatus.QUEUED], shown[JobStatus.RUNNING]) == (2, 1)
    await store.ack((await store.claim(1, 60.0))[0], ANSWER)
    shown = store.counts.shown(5)  # an end that is being written
    assert (shown[JobStatus.QUEUED], shown[JobStatus.RUNNING]) == (0, 2)
    assert shown[JobStatus.SUCCEEDED] == 1
    await store.close()


async def test_a_hundred_at_once_share_commits_and_are_all_there(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await asyncio.gather(*(store.submit(job(b"%d" % number)) for number in range(100)))
    assert store.counts[JobStatus.QUEUED] == 100
    await store.close()
    store = await opened(tmp_path)
    assert len(await store.page(list(JobStatus), 0, 1000)) == 100
    await store.close()


async def test_a_full_disk_takes_no_job_and_breaks_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    await submitted(store, b"1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.posix_fallocate", full)
        with pytest.raises(StoreFullError):
            await store.submit(job(b"2"))
        (lease,) = await store.claim(1, 60.0)
        with pytest.raises(StoreFullError):
            await store.ack(lease, ANSWER)
    assert [file.suffix for file in store.files.iterdir()] == [".body"]
    assert await store.ack(lease, ANSWER)
    await store.close()


def file_result(length: int) -> tuple[JobResult, memoryview]:
    """A worker's answer that is a file of that size."""
    result = replace(ANSWER, part="file", media_type="image/png", content_bytes=length)
    return result, memoryview(bytes(length))


async def with_a_full_budget(folder: Path, length: int) -> tuple[DiskStore, list[Lease]]:
    """A store that takes no further job, and its two jobs at work, with images of that size."""
    store = await opened(folder)
    await submitted(store, bytes(length), bytes(length))
    held = store.counts.files_bytes + 2 * RESULT_BYTES
    store.promises.budget = DiskBudget(held + 2 * USUAL_META_BYTES, 0.0)
    with pytest.raises(StoreFullError, match="disk_limit_bytes"), store.promised(0):
        pass
    return store, await store.claim(2, 60.0)


async def test_jobs_that_were_accepted_keep_the_room_that_they_have_for_their_results(
    tmp_path: Path,
) -> None:
    store, leases = await with_a_full_budget(tmp_path, 200_000)
    result, content = file_result(200_000 + RESULT_BYTES)
    assert await asyncio.gather(*(store.ack(lease, result, content) for lease in leases)) == [
        True,
        True,
    ]
    assert store.counts.files_bytes <= store.promises.budget.limit_bytes
    await store.close()


async def test_a_result_that_takes_more_room_than_its_job_has_is_refused(tmp_path: Path) -> None:
    store, leases = await with_a_full_budget(tmp_path, 200_000)
    result, content = file_result(204_000 + RESULT_BYTES)
    with pytest.raises(StoreFullError, match="disk_limit_bytes"):
        await store.ack(leases[0], result, content)
    assert await store.ack(leases[0], ANSWER)
    assert await store.ack(leases[1], result, content)  # in what the other one has left
    await store.close()


async def test_jobs_that_come_at_once_and_answers_to_come_share_what_the_disk_has_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    await submitted(store, b"1")
    free = 3 * RESULT_BYTES + sealed_bytes(0)  # an answer, and one more job with a reserve
    monkeypatch.setattr(promises, "disk_room", lambda folder: DiskRoom(free, 10 * free, 100_000))
    store.promises.budget = DiskBudget(1 << 30, RESULT_BYTES / (10 * free))
    refused = pytest.raises(StoreFullError, match="disk_free_share")
    with store.promised(0), refused, store.promised(0):
        pass
    with store.promised(0):
        pass
    await store.close()


async def test_a_change_that_fails_on_a_fault_of_ours_ends_no_later_one(tmp_path: Path) -> None:
    store = await opened(tmp_path)

    def faulty(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM jobs")
        raise KeyError("DOE^JOHN")

    (id,) = await submitted(store, b"1")
    with pytest.raises(JobStoreError, match=r"KeyError at test_store\.py") as told:
        await store.database.write(faulty)
    assert "DOE" not in str(told.value)
    assert await store.find(id) is not None
    await store.submit(job(b"2"))
    await store.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.close()
    for late in (store.find("0" * 32), store.submit(job(b"1")), store.claim(1, 60.0)):
        with pytest.raises(JobStoreError, match="closed"):
            await late
    assert list(store.files.iterdir()) == []


async def test_a_second_front_door_is_refused_the_store(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    with pytest.raises(JobStoreError, match="locked"):
        await opened(tmp_path)
    await store.close()
