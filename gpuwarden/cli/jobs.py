# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden jobs``: the durable jobs: list, show, save their results, cancel, delete."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import Connection, Reply, add_door, door_of
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import duration, table, unix_now, warn
from gpuwarden.cli.saving import Place, Saved, save
from gpuwarden.text import one_line

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")
ACTIONS = ("list", "show", "save", "cancel", "delete")
PAGE = 1000
ID_CHARACTERS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[list|show ID...|save ID...|cancel ID...|delete ID...] [--status S] [--to T] [--json]``."""
    parser.usage = """gpuwarden jobs [-h] [--json] [list] [--status STATUS]
       gpuwarden jobs show|cancel|delete ID...
       gpuwarden jobs save ID... [--to FILE|FOLDER]"""
    parser.add_argument(
        "action", nargs="?", choices=ACTIONS, default="list", help="list is the default"
    )
    parser.add_argument("ids", metavar="ID", nargs="*", help="as submit printed them")
    parser.add_argument("--status", choices=STATUSES, action="append", help="list these alone")
    parser.add_argument(
        "--to",
        metavar="FILE|FOLDER",
        type=Path,
        help="where results are saved: a folder (by default the one you are in), each as ID and"
        " its type; or one result's own file. No file is ever overwritten",
    )
    add_door(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it; 1 where a job is not there or is not as it would have to be."""
    if (arguments.action == "list") == bool(arguments.ids):
        text = "list takes no ID" if arguments.ids else f"{arguments.action} whom? Give an ID"
        raise CommandError(text, Exit.BAD_USE)
    if arguments.to is not None and arguments.action != "save":
        raise CommandError("--to goes with save: gpuwarden jobs save ID --to FILE", Exit.BAD_USE)
    for id in arguments.ids:
        if len(id) != ID_CHARACTERS or not (id.isascii() and id.isalnum()):
            raise CommandError(
                f"{id} is no job's ID: they have 32 digits (gpuwarden jobs)", Exit.BAD_USE
            )
    connection = door_of(arguments).connect()
    if arguments.action == "list":
        return list_jobs(connection, arguments)
    if arguments.action == "save":
        return save_results(connection, arguments)
    documents = [one_job(connection, arguments.action, id) for id in arguments.ids]
    if arguments.json:
        print(json.dumps({"schema": 1, "jobs": documents}, indent=2))
    elif arguments.action == "delete":
        print(f"deleted: {len(documents)}")
    else:
        print("\n".join(one_line(line) for one in documents for line in screen(one)))
    return Exit.GOOD


def list_jobs(connection: Connection, arguments: argparse.Namespace) -> int:
    """All of them, in the order of their acceptance."""
    counts: dict[str, int] = {}
    jobs = []
    for page in pages(connection, arguments.status or []):
        counts = page["counts"]
        jobs += page["data"]
    if arguments.json:
        print(json.dumps({"schema": 1, "counts": counts, "jobs": jobs}, indent=2))
        return Exit.GOOD
    print(", ".join(f"{counts[name]} {name}" for name in STATUSES))
    if jobs:
        now = unix_now()
        rows = [row(one, now) for one in jobs]
        header = ("ID", "STATUS", "PRIORITY", "BYTES", "AGE", "TOOK", "ERROR")
        print("\n".join(table(header, rows)))
    return Exit.GOOD


def save_results(connection: Connection, arguments: argparse.Namespace) -> int:
    """Each as a file; 1 where one could not be, the others are saved all the same."""
    place = Place(arguments.to or Path(), len(arguments.ids))
    saved: list[dict[str, Any]] = []
    worst = Exit.GOOD
    for id in arguments.ids:
        try:
            one = save(connection, id, place)
        except CommandError as error:
            if len(arguments.ids) == 1 or error.code is Exit.UNREACHABLE:
                raise
            warn(str(error))
            saved.append({"id": id, "error": str(error)})
            worst = error.code
        else:
            saved.append(saved_document(one))
            if not arguments.json:
                print(f"{id}  {one.file} ({one.media_type}, {one.bytes} bytes)")
    if arguments.json:
        print(json.dumps({"schema": 1, "results": saved}, indent=2))
    return worst


def saved_document(one: Saved) -> dict[str, Any]:
    """A saved result for scripts."""
    return {
        "id": one.id,
        "file": str(one.file),
        "media_type": one.media_type,
        "bytes": one.bytes,
    }


def pages(connection: Connection, statuses: list[str]) -> Iterator[dict[str, Any]]:
    """The list, page by page."""
    after: list[tuple[str, str]] = []
    while True:
        query = urlencode([("limit", str(PAGE)), *(("status", one) for one in statuses), *after])
        page = good(connection.ask("GET", f"/v1/jobs?{query}"))
        yield page
        if not page["has_more"]:
            return
        after = [("after", page["next"])]


def one_job(connection: Connection, action: str, id: str) -> dict[str, Any]:
    """Show, cancel or delete one. Raises CommandError."""
    path = f"/v1/jobs/{id}"
    if action == "show":
        return good(connection.ask("GET", path), id)
    if action == "delete":
        return good(connection.ask("DELETE", path), id)
    return good(connection.ask("PATCH", path, {"status": "cancelled"}), id)


def good(reply: Reply, subject: str = "") -> dict[str, Any]:
    """The document of a good answer. Raises CommandError with the service's words."""
    if reply.status < 400:
        return reply.document
    code = Exit.UNREACHABLE if reply.status == 503 else Exit.WRONG
    raise CommandError(f"{subject}: {reply.message}" if subject else reply.message, code)


def row(job: dict[str, Any], now: float) -> tuple[str, ...]:
    """A line of the list."""
    started, finished = job["started_at"], job["finished_at"]
    took = f"{finished - started:.1f} s" if started and finished else "-"
    return (
        job["id"],
        job["status"],
        str(job["priority"]),
        str(job["bytes"]),
        duration(now - job["created_at"]),
        took,
        job.get("error", {}).get("type", ""),
    )


def screen(job: dict[str, Any]) -> list[str]:
    """One job for people; what a worker says is not yet fit for a terminal."""
    lines = [f"{job['id']}: {job['status']}, priority {job['priority']}, {job['bytes']} bytes"]
    ahead = job["progress"]["jobs_ahead"]
    if ahead is not None:
        lines.append(f"  {ahead} jobs before it")
    if job["executions"] > 1:
        lines.append(f"  given to workers {job['executions']} times: what they did may be a repeat")
    if "error" in job:
        lines.append(f"  {job['error']['type']}: {job['error']['message']}")
    if "result" in job:
        lines.append(f"  {json.dumps(job['result']['answer'], ensure_ascii=False)}")
        if file := job["result"].get("content"):
            kind, size = file["media_type"], file["bytes"]
            lines.append(f"  a file, {kind}, {size} bytes: gpuwarden jobs save {job['id']}")
    return lines
