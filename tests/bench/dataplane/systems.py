# SPDX-License-Identifier: Apache-2.0
"""What is measured: our front door with its workers, the peers, and aiohttp alone."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.bench.dataplane import usage
from tests.bench.dataplane.served.work import WORKERS
from tests.integration.gateway_node import ThermalGuards
from tests.integration.gateway_process import RUN, ready
from tests.integration.worker_peer import start_worker

ROOT = Path(__file__).parents[3]
PEERS_PYTHON = ROOT / "build" / "bench" / "bin" / "python"
SERVED = "tests.bench.dataplane.served"
API_KEY = "a-key-for-the-benchmark"
START_SECONDS = 60.0
RUN_FOLDERS = "/dev/shm"  # in memory, as /run is where the states are published on a node
NOBODY = {"NOTIFY_SOCKET": ""}  # no systemd: nobody is to be told
BODY_LIMIT_BYTES = 128 << 20
GATEWAY, PREPARED, QUICK = "gpuwarden", "gpuwarden, preprocess", "gpuwarden, quick"
CLASSES = {GATEWAY: "Work", PREPARED: "Prepared", QUICK: "Quick"}
MOSEC, LITSERVE, QUEUE = "mosec", "LitServe", "mp.Queue"
FLOOR, BARE = "aiohttp alone", "bare steps"


@dataclass(frozen=True)
class System:
    """One that runs.

    :ivar roots: its first processes.
    """

    name: str
    port: int
    roots: list[int]
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def gpuwarden(name: str, engine: str, folder: Path) -> AsyncIterator[System]:
    """The service and its workers as on a node, without systemd: with API key and job store."""
    port = free_port()
    furnish(folder)
    dispatch = folder / "dispatch.sock"
    with tempfile.TemporaryDirectory(prefix="bench-run-", dir=RUN_FOLDERS) as run:
        guards = ThermalGuards(Path(run) / "thermal")
        places = ("--dispatch", str(dispatch), "--state", f"{run}/state.json")
        more = ("--thermal", str(guards.folder), "--jobs", str(folder / "jobs"))
        environment = {"CREDENTIALS_DIRECTORY": str(folder / "credentials")}
        words = ("--http", f"127.0.0.1:{port}", *places, *more)
        started = [await ready(folder, RUN, *words, environment=environment)]
        try:
            for number in range(WORKERS):
                settings = worker_settings(number, engine, dispatch)
                started.append(await start_worker(settings, folder, NOBODY))
            await until_answered(f"http://127.0.0.1:{port}/readyz", b'"workers_ready":%d' % WORKERS)
            # As from a proxy on this node: from there, too, the key is asked for.
            headers = {"Authorization": f"Bearer {API_KEY}", "X-Forwarded-For": "127.0.0.1"}
            yield System(name, port, [one.pid for one in started], "/predict", headers)
        finally:
            await end(started)


def furnish(folder: Path) -> None:
    """What systemd and the package would have made."""
    credentials = folder / "credentials"
    credentials.mkdir(parents=True)
    (credentials / "gpuwarden-api-key").write_text(API_KEY)
    (credentials / "gpuwarden-jobs-key").write_bytes(os.urandom(32))
    (folder / "jobs").mkdir()


def worker_settings(number: int, engine: str, dispatch: Path) -> bytes:
    """A worker with the work that all systems do."""
    settings = {
        "number": number,
        "engine": f"{SERVED}.engine:{engine}",
        "engine_path": [str(ROOT)],
        "model": "work",
        "dispatch_socket": str(dispatch),
        "gpu_index": number,
        "preprocess_processes": 1,
        "log_level": "warning",
    }
    return json.dumps(settings).encode()


@asynccontextmanager
async def peer(
    name: str, folder: Path, module: str, port_words: Callable[[int], list[str]], path: str = "/"
) -> AsyncIterator[System]:
    """A program that runs in the peers' interpreter."""
    port, log = free_port(), open_log(folder)
    with log:
        process = await asyncio.create_subprocess_exec(
            PEERS_PYTHON if PEERS_PYTHON.exists() else sys.executable,
            *("-m", f"{SERVED}.{module}", *port_words(port)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        await until_answered(f"http://127.0.0.1:{port}{path}", b'{"echo":', data=b"{}")
        yield System(name, port, [process.pid], path)
    finally:
        await end([process])


def start(name: str, folder: Path) -> AbstractAsyncContextManager[System]:
    """One of those that are known by name."""
    if name in CLASSES:
        return gpuwarden(name, CLASSES[name], folder)
    if name == MOSEC:
        return peer(name, folder, "mosec_peer", mosec_words, "/inference")
    modules = {FLOOR: "floor", BARE: "bare", LITSERVE: "litserve_peer", QUEUE: "queue_design"}
    return peer(name, folder, modules[name], lambda port: [str(port)])


def open_log(folder: Path) -> BinaryIO:
    """Where a program says what is the matter with it."""
    folder.mkdir(parents=True)
    return (folder / "log").open("wb")


def mosec_words(port: int) -> list[str]:
    """Its own command line, with room for an image."""
    limit = ("--max-request-size", str(BODY_LIMIT_BYTES))
    return [
        "--address",
        "127.0.0.1",
        "--port",
        str(port),
        *limit,
        "--timeout",
        "60000",
        "--log-level",
        "warning",
    ]


@asynccontextmanager
async def running(names: list[str], folder: Path) -> AsyncIterator[list[System]]:
    """All of them at once; each stands still until it is measured."""
    async with contextlib.AsyncExitStack() as stack:
        systems: list[System] = []
        for name in names:
            system = await stack.enter_async_context(start(name, folder / str(len(systems))))
            systems.append(system)
            usage.freeze(system.roots)
        yield systems


async def until_answered(url: str, wanted: bytes, data: bytes | None = None) -> None:
    """Wait until an address answers what it is to answer."""
    async with asyncio.timeout(START_SECONDS):
        while wanted not in await asyncio.to_thread(look, url, data):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)


def look(url: str, data: bytes | None) -> bytes:
    """What an address answers, without spaces; nothing where nobody is there yet."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            content: bytes = response.read()
    except OSError:
        return b""
    return content.replace(b" ", b"")


async def end(processes: list[asyncio.subprocess.Process]) -> None:
    """End a system with all that it has started."""
    usage.end([one.pid for one in processes if one.returncode is None])
    for process in processes:
        await process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
