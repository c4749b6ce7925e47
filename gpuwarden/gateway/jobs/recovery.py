# SPDX-License-Identifier: Apache-2.0
"""Opens the store, and makes whole what a crash, a power cut or a broken disk has left.

| found | done |
|---|---|
| a row that was leased | back to its place |
| a temporary file | destroyed: nobody was told of it |
| a result, its job not ended | the job ends with it: it isn't worked on again |
| a body, its job ended | the body is destroyed |
| a row to be deleted | its files are destroyed, it goes |
| a file without a row | taken back: nobody was told yet, or the row was lost; else destroyed |
| a row without its file | the job ends in an error that says so |
| no sound database | set aside, a new one is made from the files |
| a file that the disk refuses | left as it is, and told: all others are put in order |
| a database under another key | left as it is, and jobs are refused: the key may come back |
| files that no key is known of, under another one | the same |
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.gateway.jobs import rows, sealed
from gpuwarden.gateway.jobs.budget import DiskBudget
from gpuwarden.gateway.jobs.clocks import Moment, moment
from gpuwarden.gateway.jobs.database import BrokenDatabaseError
from gpuwarden.gateway.jobs.ends import BODY_GONE
from gpuwarden.gateway.jobs.keys import NoKeyError, StoreKey
from gpuwarden.gateway.jobs.resultfile import read_result
from gpuwarden.gateway.jobs.store import DATABASE, FILES, DiskStore
from gpuwarden.gateway.jobs.values import JobResult, JobStatus, JobStoreError
from gpuwarden.systemd.events import Event, tell

log = logging.getLogger(__name__)

KEY_FACT = "key"
RESULT_GONE = JobResult(
    ok=False,
    error_type="result_unreadable",
    error_message="the stored answer is gone or damaged: submit the image again",
)


@dataclass
class Recovered:
    """What a start has found."""

    released: int = 0
    destroyed: int = 0
    finished: int = 0
    taken_back: int = 0
    lost: int = 0


async def open_store(folder: Path, key: StoreKey, budget: DiskBudget) -> DiskStore:
    """The store in ``folder``, whole. Raises JobStoreError, NoKeyError, OSError."""
    (folder / FILES).mkdir(mode=0o700, exist_ok=True)
    try:
        return await made_whole(DiskStore(folder, key, budget))
    except BrokenDatabaseError as error:
        set_aside(folder, error)
    return await made_whole(DiskStore(folder, key, budget))


async def made_whole(store: DiskStore) -> DiskStore:
    """The store, open and in order; closed where that fails."""
    try:
        await store.database.open(rows.make_tables)
        await check_key(store)
        found = await store.database.write(lambda connection: recover(connection, store, moment()))
        await store.look_again()
    except BaseException:
        await store.close()
        raise
    report(found)
    return store


def set_aside(folder: Path, error: Exception) -> None:
    """Keep a broken database for whoever wants to look at it, out of the way."""
    mark = f"set-aside-{time.time_ns() // 1000}"
    for path in sorted(folder.glob(f"{DATABASE}*")):
        if "set-aside" not in path.name:
            path.rename(folder / f"{path.name}.{mark}")
    tell(
        Event.JOB_STORE_SET_ASIDE,
        f"the job database is broken ({error}); it was set aside as {DATABASE}.{mark}"
        " and a new one is made from the stored files",
        logging.ERROR,
    )


async def check_key(store: DiskStore) -> None:
    """Raises NoKeyError where what is stored is under another key."""

    def check(connection: sqlite3.Connection) -> bool:
        known = rows.fact(connection, KEY_FACT)
        if known is not None:
            return known == store.key.check
        if not opens_files(store):
            return False
        rows.set_fact(connection, KEY_FACT, store.key.check)
        return True

    if not await store.database.write(check):
        raise NoKeyError(
            f"the jobs in {store.folder} are encrypted under another key than the one at hand:"
            " put back /var/lib/gpuwarden/jobs.key, or remove the jobs"
            f" (systemctl stop medgemma-gateway; rm -r {store.folder}/*)"
        )


def opens_files(store: DiskStore) -> bool:
    """Whether the key is that of the files, as far as they tell, where no database says it.

    Under another one all of them would be destroyed, for what can't be read is. One that it opens
    is enough; what is no whole file, or has lost its key, tells nothing.
    """
    are_strange = False
    for path in store.files.iterdir():
        if path.suffix not in (".body", ".result"):
            continue
        with passed_over_if_refused(path.name):
            try:
                sealed.read_meta(path, store.key.secret, path.name)
            except sealed.OtherKeyError:
                are_strange = True
            except sealed.SealError as error:
                log.warning("%s", error)
            else:
                return True
    return not are_strange


def recover(connection: sqlite3.Connection, store: DiskStore, end: Moment) -> Recovered:
    """Bring rows and files together (see the module's table)."""
    found = Recovered(released=rows.release_all(connection))
    bodies, results = stored(store.files, found)
    statuses = rows.statuses(connection)
    for id in (bodies | results) - statuses.keys():
        with passed_over_if_refused(id):
            if readmit(connection, store, id, end):
                found.taken_back += 1
            else:
                store.destroy_files(id)
                found.destroyed += 1
    for id, status in statuses.items():
        with passed_over_if_refused(id):
            if status is JobStatus.DELETING:
                store.destroy_files(id)
                rows.forget(connection, id)
            elif status.is_final:
                destroy_body(store, id)
                found.destroyed += id in bodies
            elif id in results and end_with_result(connection, store, id, end):
                found.finished += 1
            elif id not in bodies:
                rows.finish(connection, id, BODY_GONE, 0, end)
                found.lost += 1
    return found


@contextlib.contextmanager
def passed_over_if_refused(name: str) -> Iterator[None]:
    """One file on a bad sector must not keep all other jobs from their callers."""
    try:
        yield
    except OSError as error:
        log.error("%s can't be put in order and stays: %s", sealed.shown(name), error.strerror)


def stored(files: Path, found: Recovered) -> tuple[set[str], set[str]]:
    """The ids that have a body, and those that have a result; what is half made goes."""
    bodies, results = set(), set()
    for path in files.iterdir():
        if path.suffix == ".body":
            bodies.add(path.stem)
        elif path.suffix == ".result":
            results.add(path.stem)
        else:
            with passed_over_if_refused(path.name):
                sealed.destroy(path)
                found.destroyed += 1
    return bodies, results


def end_with_result(connection: sqlite3.Connection, store: DiskStore, id: str, end: Moment) -> bool:
    """End a job with the result that it has on disk; False where that can't be read."""
    path = store.result_path(id)
    try:
        result = read_result(path, store.key, id)
    except sealed.SealError:
        sealed.destroy(path)
        return False
    rows.finish(connection, id, result, path.stat().st_size, end)
    destroy_body(store, id)
    return True


def destroy_body(store: DiskStore, id: str) -> None:
    """Of a job that has ended. Raises OSError: it is tried again while the service runs."""
    store.bodies_left.add(id)
    sealed.destroy(store.body_path(id))
    store.bodies_left.discard(id)


def readmit(connection: sqlite3.Connection, store: DiskStore, id: str, end: Moment) -> bool:
    """Make a job's row from its files; False where they can't be read."""
    for path in (store.result_path(id), store.body_path(id)):
        try:
            head = sealed.read_meta(path, store.key.secret, path.name)
        except (sealed.SealError, FileNotFoundError):
            continue
        idempotency = head.meta["idempotency"] and bytes.fromhex(head.meta["idempotency"])
        if idempotency and rows.find_by_key(connection, idempotency) is not None:
            return False  # its caller has tried again since
        rows.insert(
            connection,
            id=id,
            status=JobStatus.QUEUED,
            priority=head.meta["priority"],
            created=head.meta["created"],
            body_bytes=head.meta.get("body_bytes", head.length),
            files_bytes=path.stat().st_size,
            idempotency=idempotency,
            request=bytes.fromhex(head.meta.get("request") or "") or None,
            executions=head.meta.get("executions", 0),
        )
        if path == store.body_path(id) or end_with_result(connection, store, id, end):
            return True
        rows.forget(connection, id)
    return False


def report(found: Recovered) -> None:
    """Say what was found, where anything was."""
    if found == Recovered():
        return
    tell(
        Event.JOBS_RECOVERED,
        f"jobs after a restart: {found.released} to be worked on again, {found.finished} ended with"
        f" the result that they had, {found.taken_back} taken back from their files alone,"
        f" {found.lost} lost their image; {found.destroyed} leftover files were destroyed",
        logging.WARNING if found.lost or found.taken_back else logging.INFO,
    )


__all__ = ["JobStoreError", "NoKeyError", "open_store"]
