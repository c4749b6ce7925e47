# SPDX-License-Identifier: Apache-2.0
"""The durable jobs' long campaigns: kills of the front door, power cuts, crashes of their disk."""

import asyncio
import base64
import json
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from gpuwarden.gateway.jobs.budget import DiskBudget
from gpuwarden.gateway.jobs.keys import StoreKey
from gpuwarden.gateway.jobs.recovery import open_store
from gpuwarden.gateway.jobs.store import DATABASE, FILES
from gpuwarden.gateway.jobs.values import JobStatus
from tests.integration import job_kills
from tests.node.crash import DEVICE, CrashPoint, LoggedDisk
from tests.node.vm import Node
from tests.soak.thermal import DEADLINE_SECONDS, Figures

CALLER = Path(__file__).with_name("jobs_in_node.py")
CALLER_PATH = "/run/jobs_in_node.py"
STORE = "/var/lib/gpuwarden/jobs"
TOLD = re.compile(rb"^([0-9a-f]{32}) ([0-9a-f]{64})$", re.MULTILINE)
LONGEST_DELAY_SECONDS = 4.0
UNSEAL = "systemd-creds decrypt --name=gpuwarden-jobs-key /var/lib/gpuwarden/jobs.key - | base64"


def kills(count: int, seed: int) -> Figures:
    """SIGKILL of the front door with jobs in flight, as processes of this host."""
    figures = Figures("SIGKILL, jobs in flight")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jobs-") as folder:
        found = asyncio.run(job_kills.campaign(Path(folder), count, seed))
    of_jobs = f"{found.accepted} jobs, {found.repeats} repeats"
    figures.name += f" ({of_jobs}, {found.deaths} deaths of the worker)"
    figures.done, figures.faults = found.kills, found.faults
    figures.slowest_seconds = time.monotonic() - started
    return figures


def power_cuts(node: Node, count: int, seed: int) -> Figures:
    """Cut the power while jobs are accepted and executed; each that was accepted has its result."""
    chance = random.Random(seed)
    figures = Figures("power cuts, jobs in flight")
    told: list[tuple[str, str]] = []
    repeats = 0
    for _ in range(count):
        node.put(CALLER, CALLER_PATH)
        caller = node.start(f"exec python3 {CALLER_PATH} submit")
        caller.read_until("^[0-9a-f]{32} ", timeout_seconds=DEADLINE_SECONDS)
        node.run(f"sleep {chance.uniform(0, LONGEST_DELAY_SECONDS):.3f}")
        accepted = [(id.decode(), sha.decode()) for id, sha in TOLD.findall(caller.stdout)]
        node.power_cut()
        node.power_on()
        started = time.monotonic()
        node.run("systemctl start medgemma-guard", timeout_seconds=DEADLINE_SECONDS)
        told += accepted
        found = checked(node, accepted)
        figures.slowest_seconds = max(figures.slowest_seconds, time.monotonic() - started)
        figures.faults += found["faults"]
        repeats += found["repeats"]
        figures.count()
    figures.name += f" ({len(told)} jobs, {repeats} repeats)"
    return figures


def checked(node: Node, accepted: list[tuple[str, str]]) -> dict[str, Any]:
    """What the node's caller finds wrong with the jobs that it was told of."""
    node.put(CALLER, CALLER_PATH)
    node.put("".join(f"{id} {sha}\n" for id, sha in accepted).encode(), "/run/told")
    answer = node.run(
        f"python3 {CALLER_PATH} check < /run/told", timeout_seconds=4 * DEADLINE_SECONDS
    )
    found: dict[str, Any] = json.loads(answer.text)
    return found


def crash_points(node: Node, jobs: int, folder: Path) -> Figures:
    """Keep the jobs on a disk whose writes are recorded; open the store of every crash of it."""
    figures = Figures("replayed crash points, jobs")
    disk = LoggedDisk(node)
    node.run(
        f"systemctl stop medgemma-gateway.service && mount {DEVICE} {STORE} &&"
        f" chown gpuwarden-gateway: {STORE} && chmod 700 {STORE} &&"
        " systemctl start medgemma-gateway.service",
        timeout_seconds=DEADLINE_SECONDS,
    )
    key = StoreKey(node_key(node))
    node.put(CALLER, CALLER_PATH)
    caller = node.start(f"exec python3 {CALLER_PATH} submit {STORE}")
    caller.read_until(f"(?:^[0-9a-f]{{32}} .*\n){{{jobs}}}", timeout_seconds=DEADLINE_SECONDS)
    node.power_cut()
    for point in disk.crash_points():
        figures.done += 1
        place = folder / f"point-{point.number}"
        marked = extract(point, place)
        if not (place / DATABASE).exists():
            figures.faults += [f"{id} is gone at {point.number}" for id in marked]
            continue
        figures.faults += asyncio.run(faults_of(place, key, marked, point.number))
    return figures


def node_key(node: Node) -> bytes:
    """The store's key, as root of the node may unseal it."""
    return base64.b64decode(node.run(UNSEAL).text)


def extract(point: CrashPoint, place: Path) -> list[str]:
    """Put the store as it was into ``place``; the ids of all jobs of which a caller was told."""
    (place / FILES).mkdir(parents=True)
    names = point.names("/")
    for name in [name for name in names if name.startswith(DATABASE)]:
        (place / name).write_bytes(point.read(f"/{name}") or b"")
    for name in point.names(f"/{FILES}") if FILES in names else ():
        (place / FILES / name).write_bytes(point.read(f"/{FILES}/{name}") or b"")
    return sorted(name.removeprefix("mark-") for name in names if name.startswith("mark-"))


async def faults_of(place: Path, key: StoreKey, marked: list[str], number: int) -> list[str]:
    """What is wrong with the store of a crash: jobs that are gone, or can't be read."""
    store = await open_store(place, key, DiskBudget(1 << 40, 0.0))
    aside = [file.name for file in store.folder.iterdir() if "set-aside" in file.name]
    faults = [f"{name} at {number}" for name in aside]
    rows = {row.id: row for row in await store.page(list(JobStatus), 0, 100_000)}
    for id in marked:
        row = rows.get(id)
        if row is None or row.status is JobStatus.FAILED:
            faults.append(f"{id} is lost at {number}: {row}")
        elif row.status is JobStatus.SUCCEEDED:
            await store.result(id)
    for lease in await store.claim(100_000, 60.0):
        content = bytearray()

        def put(length: int, content: bytearray = content) -> memoryview:
            content.extend(bytes(length))
            return memoryview(content)

        await store.fetch(lease, put)
    await store.close()
    return faults
