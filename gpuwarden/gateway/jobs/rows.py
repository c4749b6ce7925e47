# SPDX-License-Identifier: Apache-2.0
"""The job table: what is asked of it and changed in it, each as a function over a connection.

Nothing of a job's content is in it: neither image nor question nor answer, and of a caller's
Idempotency-Key, of the request and of the body keyed hashes alone.
"""

import sqlite3
import time
from collections.abc import Collection, Sequence

from gpuwarden.gateway.jobs.database import BrokenDatabaseError
from gpuwarden.gateway.jobs.values import (
    FINAL,
    SHOWN,
    JobCounts,
    JobResult,
    JobRow,
    JobStatus,
    JobStoreError,
    Lease,
    NewJob,
)

ROW = (
    "id, sequence, status, priority, created, started, finished, body_bytes,"
    " request, executions, deaths, tries, lease, idempotency, error"
)
LEASE = "id, lease, priority, body_bytes, executions, deaths, tries"
# A table from before counts deaths of workers and other failures together: who would know which?
UPGRADE = """
BEGIN;
ALTER TABLE jobs RENAME COLUMN failures TO tries;
ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
COMMIT;
"""
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    finished_boot TEXT,
    finished_boottime REAL,
    body_bytes INTEGER NOT NULL,
    files_bytes INTEGER NOT NULL,
    executions INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    lease INTEGER NOT NULL DEFAULT 0,
    lease_until REAL,
    idempotency BLOB UNIQUE,
    request BLOB,
    error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_in_order ON jobs (status, priority DESC, sequence);
CREATE TABLE IF NOT EXISTS counts (
    status TEXT PRIMARY KEY, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS counted_in AFTER INSERT ON jobs BEGIN
    INSERT INTO counts VALUES (new.status, 1, new.files_bytes) ON CONFLICT (status)
    DO UPDATE SET jobs = jobs + 1, bytes = bytes + new.files_bytes;
END;
CREATE TRIGGER IF NOT EXISTS counted_out AFTER DELETE ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1, bytes = bytes - old.files_bytes WHERE status = old.status;
END;
CREATE TRIGGER IF NOT EXISTS counted_anew AFTER UPDATE OF status, files_bytes ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1, bytes = bytes - old.files_bytes WHERE status = old.status;
    INSERT INTO counts VALUES (new.status, 1, new.files_bytes) ON CONFLICT (status)
    DO UPDATE SET jobs = jobs + 1, bytes = bytes + new.files_bytes;
END;
CREATE TABLE IF NOT EXISTS set_aside (digest BLOB PRIMARY KEY, until REAL NOT NULL) STRICT;
SELECT {ROW} FROM jobs LIMIT 0; -- fails on what another version has made
"""


def make_tables(connection: sqlite3.Connection) -> None:
    """Make them, or take over those of an older version. Raises sqlite3.OperationalError."""
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")]
    if "failures" in columns:
        connection.executescript(UPGRADE)
    connection.executescript(SCHEMA)


def status_of(text: str) -> JobStatus:
    """A status as it is stored. Raises BrokenDatabaseError."""
    try:
        return JobStatus(text)
    except ValueError:
        raise BrokenDatabaseError("a job has a status that there is not") from None


def row_of(values: Sequence[object]) -> JobRow:
    """A line of ``ROW``. Raises BrokenDatabaseError."""
    fields = dict(zip(ROW.split(", "), values, strict=True))
    return JobRow(**fields | {"status": status_of(str(fields["status"]))})  # type: ignore[arg-type] # typed by the schema, STRICT


def insert(
    connection: sqlite3.Connection,
    *,
    id: str,
    status: JobStatus,
    priority: int,
    created: float,
    body_bytes: int,
    files_bytes: int,
    idempotency: bytes | None,
    request: bytes | None,
    executions: int = 0,
) -> None:
    """Add a job. Raises sqlite3.IntegrityError where its Idempotency-Key is known."""
    connection.execute(
        "INSERT INTO jobs (id, status, priority, created, body_bytes, files_bytes,"
        " idempotency, request, executions) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(id, status, priority, created, body_bytes, files_bytes),
            *(idempotency, request, executions),
        ),
    )


def add(connection: sqlite3.Connection, id: str, job: NewJob, size: int) -> tuple[JobRow, bool]:
    """Add the row, or find the one that is there under the same Idempotency-Key."""
    if job.idempotency is not None:
        known = find_by_key(connection, job.idempotency)
        if known is not None:
            return known, False
    insert(
        connection,
        id=id,
        status=JobStatus.QUEUED,
        priority=job.priority,
        created=time.time(),
        body_bytes=len(job.content),
        files_bytes=size,
        idempotency=job.idempotency,
        request=job.request,
    )
    row = find(connection, id)
    if row is None:
        raise JobStoreError("the job that was just added is not there")
    return row, True


def find(connection: sqlite3.Connection, id: str) -> JobRow | None:
    """One job."""
    found = connection.execute(
        f"SELECT {ROW} FROM jobs WHERE id = ? AND status != ?", (id, JobStatus.DELETING)
    ).fetchone()
    return found and row_of(found)


def find_by_key(connection: sqlite3.Connection, idempotency: bytes) -> JobRow | None:
    """The job that was submitted under that key."""
    found = connection.execute(
        f"SELECT {ROW} FROM jobs WHERE idempotency = ? AND status != ?",
        (idempotency, JobStatus.DELETING),
    ).fetchone()
    return found and row_of(found)


def ahead(connection: sqlite3.Connection, row: JobRow) -> int:
    """How many jobs come before a queued one."""
    count: int = connection.execute(
        "SELECT count(*) FROM jobs WHERE status = ?1 AND (priority > ?2"
        " OR (priority = ?2 AND sequence < ?3))",
        (JobStatus.QUEUED, row.priority, row.sequence),
    ).fetchone()[0]
    return count


def page(
    connection: sqlite3.Connection,
    statuses: Sequence[JobStatus],
    after: int,
    limit: int,
    at_work: Collection[str] = (),
) -> list[JobRow]:
    """Jobs in the order of their acceptance, from behind sequence ``after``.

    :param at_work: the jobs that a worker has: of the leased ones they alone count as running.
    """
    marks, ids = ", ".join("?" * len(statuses)), ", ".join("?" * len(at_work))
    shown = f"iif(status = ? AND id NOT IN ({ids}), ?, status)"
    found = connection.execute(
        f"SELECT {ROW} FROM jobs WHERE sequence > ? AND {shown} IN ({marks})"
        " ORDER BY sequence LIMIT ?",
        (after, JobStatus.RUNNING, *at_work, JobStatus.QUEUED, *statuses, limit),
    )
    return [row_of(values) for values in found]


def counts(connection: sqlite3.Connection) -> JobCounts:
    """All jobs in figures."""
    found = connection.execute("SELECT status, jobs, bytes FROM counts")
    lines = [(status_of(status), count, size) for status, count, size in found]
    return JobCounts(
        {status: count for status, count, _ in lines if status in SHOWN},
        sum(size for _, _, size in lines),
    )


def release_all(connection: sqlite3.Connection) -> int:
    """Put every leased job back to its place: nobody works on it any more."""
    return connection.execute(
        "UPDATE jobs SET status = ?, lease_until = NULL WHERE status = ?",
        (JobStatus.QUEUED, JobStatus.RUNNING),
    ).rowcount


def release_expired(connection: sqlite3.Connection, now: float) -> None:
    """Put back to its place what is leased beyond its time; ``now`` on the clock of leases."""
    connection.execute(
        "UPDATE jobs SET status = ?, lease_until = NULL WHERE status = ? AND lease_until < ?",
        (JobStatus.QUEUED, JobStatus.RUNNING, now),
    )


def claim(connection: sqlite3.Connection, count: int, until: float, unix: float) -> list[Lease]:
    """Lease the first ``count`` queued jobs.

    :param until: on the clock of leases; ``unix``: seconds since 1970.
    """
    found = connection.execute(
        "UPDATE jobs SET status = ?, lease = lease + 1, executions = executions + 1,"
        " started = coalesce(started, ?), lease_until = ? WHERE sequence IN"
        " (SELECT sequence FROM jobs WHERE status = ? ORDER BY priority DESC, sequence LIMIT ?)"
        f" RETURNING sequence, {LEASE}",
        (JobStatus.RUNNING, unix, until, JobStatus.QUEUED, count),
    ).fetchall()
    in_order = sorted(found, key=lambda values: (-values[3], values[0]))
    return [Lease(*values[1:]) for values in in_order]


def extend(connection: sqlite3.Connection, leases: Sequence[Lease], until: float) -> set[str]:
    """Hold on to leases; the ids of those that were still held."""
    held = set()
    for lease in leases:
        changed = connection.execute(
            "UPDATE jobs SET lease_until = ? WHERE id = ? AND lease = ? AND status = ?",
            (until, lease.id, lease.token, JobStatus.RUNNING),
        ).rowcount
        if changed:
            held.add(lease.id)
    return held


def give_back(connection: sqlite3.Connection, lease: Lease, tries: int, *, begun: bool) -> bool:
    """End a lease without a result; False where it was not held any more."""
    return bool(
        connection.execute(
            "UPDATE jobs SET status = ?, lease_until = NULL, tries = max(tries, ?),"
            " executions = executions - ? WHERE id = ? AND lease = ? AND status = ?",
            (
                *(JobStatus.QUEUED, tries, 0 if begun else 1),
                *(lease.id, lease.token, JobStatus.RUNNING),
            ),
        ).rowcount
    )


def note_repeat(connection: sqlite3.Connection, lease: Lease, deaths: int) -> None:
    """Count that a leased job is given out once more, with what it has done to workers."""
    connection.execute(
        "UPDATE jobs SET deaths = max(deaths, ?), executions = executions + 1 WHERE id = ?",
        (deaths, lease.id),
    )


def finish(
    connection: sqlite3.Connection,
    id: str,
    result: JobResult,
    files_bytes: int,
    moment: tuple[float, str, float],
) -> bool:
    """Give a job its end; False where it has one already.

    :param moment: seconds since 1970, the boot, and seconds of it.
    """
    return bool(
        connection.execute(
            "UPDATE jobs SET status = ?, finished = ?, finished_boot = ?, finished_boottime = ?,"
            " lease_until = NULL, error = ?, files_bytes = ? WHERE id = ? AND status IN (?, ?)",
            (
                *(result.status, *moment, result.error_type, files_bytes),
                *(id, JobStatus.QUEUED, JobStatus.RUNNING),
            ),
        ).rowcount
    )


def mark_deleting(connection: sqlite3.Connection, id: str) -> bool:
    """Take a job out of sight before its files go; False where there is none."""
    return bool(
        connection.execute(
            "UPDATE jobs SET status = ?, idempotency = NULL WHERE id = ?", (JobStatus.DELETING, id)
        ).rowcount
    )


def deleting(connection: sqlite3.Connection) -> list[str]:
    """Jobs out of sight whose files may be there yet."""
    found = connection.execute("SELECT id FROM jobs WHERE status = ?", (JobStatus.DELETING,))
    return [id for (id,) in found]


def forget(connection: sqlite3.Connection, id: str) -> None:
    """Remove a job whose files are gone."""
    connection.execute("DELETE FROM jobs WHERE id = ?", (id,))


def expired(
    connection: sqlite3.Connection, keep_seconds: float, moment: tuple[float, str, float]
) -> list[str]:
    """Jobs whose end is longer ago; within a boot by its own clock, which nobody sets."""
    unix, boot, boottime = moment
    marks = ", ".join("?" * len(FINAL))
    found = connection.execute(
        f"SELECT id FROM jobs WHERE status IN ({marks}) AND CASE WHEN finished_boot = ?"
        " THEN finished_boottime < ? ELSE finished < ? END",
        (*FINAL, boot, boottime - keep_seconds, unix - keep_seconds),
    )
    return [id for (id,) in found]


def statuses(connection: sqlite3.Connection) -> dict[str, JobStatus]:
    """Each job's status."""
    return {
        id: status_of(status) for id, status in connection.execute("SELECT id, status FROM jobs")
    }


def set_aside(connection: sqlite3.Connection, digest: bytes, until: float) -> None:
    """Take no more of a body."""
    connection.execute("INSERT OR REPLACE INTO set_aside VALUES (?, ?)", (digest, until))


def all_set_aside(connection: sqlite3.Connection, unix: float) -> dict[bytes, float]:
    """The bodies that are set aside, and until when."""
    connection.execute("DELETE FROM set_aside WHERE until < ?", (unix,))
    return dict(connection.execute("SELECT digest, until FROM set_aside").fetchall())


def fact(connection: sqlite3.Connection, name: str) -> bytes | None:
    """A fact about the store itself."""
    found = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return bytes(found[0]) if found else None


def set_fact(connection: sqlite3.Connection, name: str, value: bytes) -> None:
    """Remember a fact about the store itself."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
