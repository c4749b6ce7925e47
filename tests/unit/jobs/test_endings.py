# SPDX-License-Identifier: Apache-2.0
"""Ends of one job that meet: whoever leaves, whatever comes first, nothing is left half done."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.gateway.jobs import rows, sealed
from gpuwarden.gateway.jobs.store import DiskStore
from gpuwarden.gateway.jobs.values import JobStatus, JobStoreError, Lease, StoreFullError
from tests.held_steps import as_far_as_it_gets, held_step
from tests.unit.jobs.stores import ANSWER, opened, submitted


async def with_a_job_at_work(folder: Path) -> tuple[DiskStore, str, Lease]:
    """An open store, and its only job."""
    store = await opened(folder)
    (id,) = await submitted(store, b"1")
    (lease,) = await store.claim(1, 60.0)
    return store, id, lease


async def test_a_job_that_is_deleted_while_its_answer_is_written_is_gone_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, id, lease = await with_a_job_at_work(tmp_path)
    with held_step(monkeypatch, sealed, "write") as held:
        ending = asyncio.create_task(store.ack(lease, ANSWER))
        await held.is_under_way()
        deleting = asyncio.create_task(store.delete(id))
        await as_far_as_it_gets(deleting)
        ending.cancel()  # as a deletion stops who works on it
        await as_far_as_it_gets(ending)
    assert await deleting
    with pytest.raises(asyncio.CancelledError):
        await ending
    await store.close()
    assert list(store.files.iterdir()) == []


async def test_an_end_goes_on_to_the_image_though_who_gave_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, id, lease = await with_a_job_at_work(tmp_path)
    with held_step(monkeypatch, sealed, "write") as held:
        ending = asyncio.create_task(store.ack(lease, ANSWER))
        await held.is_under_way()
        for _ in range(2):
            ending.cancel()
            await as_far_as_it_gets(ending)
    with pytest.raises(asyncio.CancelledError):
        await ending
    row = await store.find(id)
    assert row is not None
    assert row.status is JobStatus.SUCCEEDED
    assert [file.suffix for file in store.files.iterdir()] == [".result"]
    await store.close()


async def test_an_answer_counts_where_the_cancel_before_it_found_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, id, lease = await with_a_job_at_work(tmp_path)
    write, tries = sealed.write, []

    def full_once(*arguments: Any) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(sealed, "write", full_once)
    with held_step(monkeypatch, sealed, "write") as held:
        cancelling = asyncio.create_task(store.cancel(id))
        await held.is_under_way()
        ending = asyncio.create_task(store.ack(lease, ANSWER))
        await as_far_as_it_gets(ending)
    with pytest.raises(StoreFullError):
        await cancelling
    assert await ending
    assert (await store.result(id)).answer == ANSWER.answer
    await store.close()


async def test_an_answer_that_is_written_twice_leaves_no_key_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, id, lease = await with_a_job_at_work(tmp_path)

    def refused(*_: object) -> bool:
        raise JobStoreError("not committed")

    with monkeypatch.context() as patched:
        patched.setattr(rows, "finish", refused)
        with pytest.raises(JobStoreError):
            await store.ack(lease, ANSWER)
    blocks = tmp_path / "blocks"
    blocks.hardlink_to(store.result_path(id))
    assert await store.cancel(id)
    assert (await store.result(id)).cancelled
    with pytest.raises(sealed.SealError):
        sealed.read_meta(blocks, store.key.secret, f"{id}.result")
    await store.close()


async def test_a_file_that_can_not_be_destroyed_keeps_no_other_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    bad, good = await submitted(store, b"1", b"2")
    for id in (bad, good):
        assert await store.cancel(id)
    destroy = sealed.destroy

    def broken(path: Path) -> None:
        if path.stem == bad:
            raise OSError(errno.EIO, "Input/output error")
        destroy(path)

    with monkeypatch.context() as patched:
        patched.setattr(sealed, "destroy", broken)
        assert await store.expire(0.0) == 1
        assert await store.expire(0.0) == 0
    assert [file.stem for file in store.files.iterdir()] == [bad]
    assert await store.expire(0.0) == 1
    assert list(store.files.iterdir()) == []
    await store.close()


async def test_nobody_writes_to_the_place_of_an_image_whose_reading_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    await submitted(store, b"one caller's")
    (lease,) = await store.claim(1, 60.0)
    buffer = bytearray(len(b"one caller's"))
    with held_step(monkeypatch, sealed, "read") as held:
        fetching = asyncio.create_task(store.fetch(lease, lambda length: memoryview(buffer)))
        await held.is_under_way()
        fetching.cancel()
        await as_far_as_it_gets(fetching)
        given_back = fetching.done()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    buffer[:] = b"another's..."
    await store.close()  # and all of its threads
    assert not given_back
    assert buffer == b"another's..."


async def test_a_job_has_its_end_though_its_image_can_not_be_destroyed_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, id, lease = await with_a_job_at_work(tmp_path)

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(sealed, "destroy", broken)
        assert await store.ack(lease, ANSWER)
    assert store.body_path(id).exists()
    assert id not in caplog.text
    await store.expire(60.0)
    assert [file.suffix for file in store.files.iterdir()] == [".result"]
    assert (await store.result(id)).answer == ANSWER.answer
    await store.close()
