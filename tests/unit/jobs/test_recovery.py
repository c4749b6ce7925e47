# SPDX-License-Identifier: Apache-2.0
"""What a start makes of whatever a crash has left."""

import contextlib
import errno
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwarden.gateway.jobs import rows, sealed
from gpuwarden.gateway.jobs.database import BrokenDatabaseError
from gpuwarden.gateway.jobs.keys import NoKeyError, StoreKey
from gpuwarden.gateway.jobs.resultfile import write_result
from gpuwarden.gateway.jobs.store import DATABASE
from gpuwarden.gateway.jobs.values import JobStatus
from tests.unit.jobs.stores import ANSWER, content_of, job, opened, submitted


async def test_leased_jobs_wait_again_in_their_old_order(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    ids = await submitted(store, b"1", b"2", b"3")
    await store.claim(2, 60.0)
    await store.close()
    store = await opened(tmp_path)
    assert store.counts[JobStatus.QUEUED] == 3
    leases = await store.claim(3, 60.0)
    assert [lease.id for lease in leases] == ids
    assert [lease.executions for lease in leases] == [2, 2, 1]
    await store.close()


async def test_a_result_that_was_on_disk_is_not_worked_out_again(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    (lease,) = await store.claim(1, 60.0)
    row = await store.find(id)
    assert row is not None
    write_result(store.result_path(row.id), store.key, row, ANSWER, 1.0)  # and the power goes
    await store.close()
    store = await opened(tmp_path)
    row = await store.find(id)
    assert row is not None
    assert row.status is JobStatus.SUCCEEDED
    assert (await store.result(id)).answer == ANSWER.answer
    assert not store.body_path(id).exists()
    assert not await store.ack(lease, ANSWER)
    await store.close()


async def test_a_large_result_that_was_on_disk_survives_its_row_and_its_database(
    tmp_path: Path,
) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    row = await store.find(id)
    assert row is not None
    content = b"mask" * 50_000
    result = replace(ANSWER, part="file", media_type="image/png", content_bytes=len(content))
    write_result(store.result_path(id), store.key, row, result, 1.0, memoryview(content))
    await store.close()
    (tmp_path / DATABASE).unlink()
    store = await opened(tmp_path)
    found = bytearray(len(content))
    assert await store.result(id) == result
    await store.content(id, lambda length: memoryview(found)[:length])
    assert found == content
    await store.close()


async def test_half_made_files_go_and_a_body_without_a_row_is_taken_back(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"kept")
    await store.database.write(lambda connection: rows.forget(connection, id))
    (store.files / f"{'0' * 32}.body.tmp").write_bytes(b"half")
    (store.files / f"{'1' * 32}.body").write_bytes(b"no sealed file")
    await store.close()
    store = await opened(tmp_path)
    assert [file.name for file in store.files.iterdir()] == [f"{id}.body"]
    assert await content_of(store, id) == b"kept"
    await store.close()


async def test_a_repeat_under_the_same_key_is_no_second_job(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    row, _ = await store.submit(job(b"once", key="k"))
    await store.database.write(lambda connection: rows.forget(connection, row.id))
    again, new = await store.submit(job(b"once", key="k"))
    assert new
    await store.close()
    store = await opened(tmp_path)
    assert [file.name for file in store.files.iterdir()] == [f"{again.id}.body"]
    await store.close()


@pytest.mark.parametrize(
    "damage", ["cut short", "overwritten", "gone", "another version's", "none at all"]
)
async def test_jobs_outlive_their_database(tmp_path: Path, damage: str) -> None:
    store = await opened(tmp_path)
    done, waiting = await submitted(store, b"done", b"waiting")
    (lease,) = await store.claim(1, 60.0)
    await store.ack(lease, ANSWER)
    await store.submit(job(b"keyed", key="k"))
    await store.close()
    database = tmp_path / DATABASE
    if damage == "cut short":
        database.write_bytes(database.read_bytes()[:5000])
    elif damage == "overwritten":
        content = bytearray(database.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        database.write_bytes(content)
    elif damage == "gone":
        database.unlink()
    elif damage == "another version's":
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("ALTER TABLE jobs DROP COLUMN request")
    else:
        database.write_bytes(b"these are no tables")
    store = await opened(tmp_path)
    statuses = {row.id: row.status for row in await store.page(list(JobStatus), 0, 10)}
    assert statuses[done] is JobStatus.SUCCEEDED
    assert statuses[waiting] is JobStatus.QUEUED
    assert (await store.result(done)).answer == ANSWER.answer
    assert not (await store.submit(job(b"keyed", key="k")))[1]
    assert await content_of(store, waiting) == b"waiting"
    set_aside = any("set-aside" in file.name for file in store.folder.iterdir())
    assert set_aside == (damage != "gone")
    await store.close()


DAMAGES = {
    "a row that is in no index": (
        "CREATE INDEX no_rows ON jobs (status, priority DESC, sequence) WHERE 0",
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema"
        " WHERE name IN ('jobs_in_order', 'no_rows')) - rootpage"
        " WHERE name IN ('jobs_in_order', 'no_rows')",
    ),
    "a status that there is not": ("UPDATE jobs SET status = 'quiet'",),
    "a status that is no text": ("UPDATE jobs SET status = CAST(x'ff' AS TEXT)",),
    "figures of a status that there is not": ("UPDATE counts SET status = 'quiet'",),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_jobs_outlive_damage_that_leaves_the_tables_sound(
    tmp_path: Path, damage: str
) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"waiting")
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        for statement in DAMAGES[damage]:
            connection.execute(statement)
        connection.commit()
    store = await opened(tmp_path)
    assert any("set-aside" in file.name for file in store.folder.iterdir())
    assert await content_of(store, id) == b"waiting"
    await store.close()


async def test_a_database_that_is_broken_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise BrokenDatabaseError("as the one before")

    monkeypatch.setattr(rows, "release_all", broken)
    with pytest.raises(BrokenDatabaseError):
        await opened(tmp_path)
    monkeypatch.undo()
    store = await opened(tmp_path)  # and closed it was
    assert any("set-aside" in file.name for file in store.folder.iterdir())
    await store.close()


async def test_a_job_whose_image_is_gone_ends_and_says_so(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    store.body_path(id).unlink()
    await store.close()
    store = await opened(tmp_path)
    row = await store.find(id)
    assert row is not None
    assert (row.status, row.error) == (JobStatus.FAILED, "body_unreadable")
    await store.close()


async def test_a_deletion_that_was_begun_is_finished(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    await store.database.write(lambda connection: rows.mark_deleting(connection, id))
    await store.close()
    store = await opened(tmp_path)
    assert await store.find(id) is None
    assert list(store.files.iterdir()) == []
    await store.close()


def refused_to(monkeypatch: pytest.MonkeyPatch, step: str, id: str) -> None:
    """Have the disk refuse one step with the files of one job."""
    done = getattr(sealed, step)

    def refused(path: Path, *arguments: object) -> object:
        if path.name.startswith(id):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return done(path, *arguments)

    monkeypatch.setattr(sealed, step, refused)


async def test_a_leftover_that_the_disk_refuses_is_left_alone_and_keeps_no_other_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await opened(tmp_path)
    bad, good = await submitted(store, b"bad", b"good")
    await store.database.write(lambda connection: rows.forget(connection, bad))
    await store.database.write(lambda connection: rows.forget(connection, good))
    await store.close()
    with monkeypatch.context() as patched:
        refused_to(patched, "read_meta", bad)
        store = await opened(tmp_path)
    assert await store.find(bad) is None
    assert await content_of(store, good) == b"good"
    assert f"{bad[:8]}* can't be put in order" in caplog.text
    assert bad not in caplog.text
    await store.close()
    store = await opened(tmp_path)  # the disk is well again
    assert await content_of(store, bad) == b"bad"
    await store.close()


async def test_what_the_disk_refuses_to_destroy_keeps_no_other_job_and_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    deleted, good = await submitted(store, b"deleted", b"good")
    half = store.files / f"{'0' * 32}.result.tmp"
    half.write_bytes(b"half")
    await store.database.write(lambda connection: rows.mark_deleting(connection, deleted))
    await store.close()
    with monkeypatch.context() as patched:
        refused_to(patched, "destroy", deleted)
        refused_to(patched, "destroy", "0" * 32)
        store = await opened(tmp_path)
        assert half.exists()
    assert await store.find(deleted) is None
    assert await content_of(store, good) == b"good"
    assert await store.expire(60.0) == 1
    assert not store.body_path(deleted).exists()
    await store.close()


async def test_the_image_of_an_ended_job_that_the_disk_refuses_at_a_start_goes_soon_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"image")
    (lease,) = await store.claim(1, 60.0)
    with monkeypatch.context() as patched:
        refused_to(patched, "destroy", id)
        await store.ack(lease, ANSWER)
        await store.close()
        store = await opened(tmp_path)
    assert store.body_path(id).exists()
    await store.expire(60.0)
    assert not store.body_path(id).exists()
    assert (await store.result(id)).ok
    await store.close()


@pytest.mark.parametrize("step", ["read_meta", "read"])
async def test_a_job_whose_early_result_the_disk_refuses_is_worked_on_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    row = await store.find(id)
    assert row is not None
    write_result(store.result_path(id), store.key, row, ANSWER, 1.0)
    await store.close()
    with monkeypatch.context() as patched:
        refused_to(patched, step, id)
        store = await opened(tmp_path)
    (lease,) = await store.claim(1, 60.0)
    assert await store.ack(lease, ANSWER)
    assert (await store.result(id)).answer == ANSWER.answer
    await store.close()


async def test_under_another_key_nothing_is_touched(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    await store.close()
    with pytest.raises(NoKeyError, match="another key"):
        await opened(tmp_path, StoreKey(b"k" * 32))
    store = await opened(tmp_path)
    assert await content_of(store, id) == b"1"
    await store.close()


@pytest.mark.parametrize("left", [b"these are no tables", None])
async def test_without_a_sound_database_no_file_of_another_key_is_touched(
    tmp_path: Path, left: bytes | None
) -> None:
    store = await opened(tmp_path)
    waiting, done = await submitted(store, b"waiting", b"done")
    assert await store.cancel(done)
    await store.close()
    (tmp_path / DATABASE).unlink()
    if left is not None:
        (tmp_path / DATABASE).write_bytes(left)
    for _ in range(2):  # the database that is new by then knows of no key either
        with pytest.raises(NoKeyError, match="another key"):
            await opened(tmp_path, StoreKey(b"k" * 32))
    store = await opened(tmp_path)
    assert await content_of(store, waiting) == b"waiting"
    assert (await store.result(done)).cancelled
    await store.close()


async def test_files_that_nobody_can_read_any_more_keep_no_new_database_from_its_key(
    tmp_path: Path,
) -> None:
    store = await opened(tmp_path)
    cut, destroyed = await submitted(store, b"cut short", b"destroyed")
    content = store.body_path(destroyed).read_bytes()
    await store.close()
    (tmp_path / DATABASE).unlink()
    store.body_path(cut).write_bytes(content[:50])
    (tmp_path / "blocks").hardlink_to(store.body_path(destroyed))
    sealed.destroy(store.body_path(destroyed))
    (tmp_path / "blocks").rename(store.body_path(destroyed))  # as if it had stopped in between
    store = await opened(tmp_path)
    assert list(store.files.iterdir()) == []
    await store.close()


def test_a_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(NoKeyError, match="31 bytes, not 32"):
        StoreKey(bytes(31))


async def test_the_failures_that_an_older_version_counted_are_no_deaths(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    (id,) = await submitted(store, b"1")
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as former:
        former.execute("ALTER TABLE jobs DROP COLUMN deaths")
        former.execute("ALTER TABLE jobs RENAME COLUMN tries TO failures")
        former.execute("UPDATE jobs SET failures = 2")
        former.commit()
    store = await opened(tmp_path)
    row = await store.find(id)
    assert row is not None
    assert (row.deaths, row.tries) == (0, 2)
    await store.close()
