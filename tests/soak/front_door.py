# SPDX-License-Identifier: Apache-2.0
"""A front door of this host as its own process, workers that are started again, and callers."""

import asyncio
import contextlib
import hashlib
import random
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.integration.gateway_node import Reply, ThermalGuards, read_reply
from tests.integration.gateway_process import RUN, ready
from tests.integration.worker_peer import Worker, close_node, make_node

READY_SECONDS = 60.0  # for a start on a busy machine
PATIENCE_SECONDS = 60.0  # a caller without an answer for so long hangs
LOOK_SECONDS = 0.01
GONE = re.compile(r"worker \d+ \(pid (\d+)\) is gone with (\d+) requests unanswered")
API_KEY = "open sesame, open sesame"


@dataclass(frozen=True)
class FrontDoor:
    """A running front door."""

    process: asyncio.subprocess.Process
    port: int
    folder: Path
    guards: ThermalGuards

    @property
    def dispatch(self) -> Path:
        """Where workers connect."""
        return self.folder / "dispatch.sock"

    def log(self) -> str:
        """What it has told so far."""
        return (self.folder / "log").read_text()

    def left_behind(self, pid: int) -> int | None:
        """How many requests a worker had when it died; None before that is told."""
        told = {int(pid): int(count) for pid, count in GONE.findall(self.log())}
        return told.get(pid)

    async def ask(
        self,
        path: str,
        body: bytes = b"",
        *,
        method: str = "POST",
        seconds: float = PATIENCE_SECONDS,
        **headers: str,
    ) -> Reply:
        """One request on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        try:
            with contextlib.suppress(ConnectionError):  # a refusal may come before the body's end
                writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
                await writer.drain()
            return await read_reply(reader, seconds)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def front_door(folder: Path) -> AsyncIterator[FrontDoor]:
    """A front door with the shipped limits, cool cards and a store for jobs."""
    (folder / "jobs").mkdir()
    (folder / "gpuwarden-jobs-key").write_bytes(bytes(range(32)))
    (folder / "gpuwarden-api-key").write_text(API_KEY)
    guards = ThermalGuards(folder / "thermal")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {
        "--http": f"127.0.0.1:{port}",
        "--dispatch": str(folder / "dispatch.sock"),
        "--state": str(folder / "state.json"),
        "--thermal": str(folder / "thermal"),
        "--jobs": str(folder / "jobs"),
    }
    words = [word for pair in places.items() for word in pair]
    environment = {"CREDENTIALS_DIRECTORY": str(folder)}
    process = await ready(folder, RUN, *words, environment=environment)
    try:
        yield FrontDoor(process, port, folder, guards)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


class KeptWorker:
    """A worker that is started again at once whenever it ends, as systemd does."""

    def __init__(self, dispatch: Path, number: int, **settings: Any) -> None:
        self.number = number
        self.ready = asyncio.Event()
        self.lives = 0
        self._home = make_node()
        self._worker: Worker | None = None
        self._over = False
        self._settings = {
            "number": number,
            "gpu_index": number,
            "dispatch_socket": str(dispatch),
            "log_level": "error",
            **settings,
        }
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._home.notify, self._hear)
        self._keeping = asyncio.create_task(self._keep())
        await self.until_ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(self._home.notify)
        close_node(self._home)

    @property
    def pid(self) -> int:
        """The process of this life."""
        assert self._worker is not None
        return self._worker.pid

    def kill(self) -> int:
        """SIGKILL; the PID that has been."""
        assert self._worker is not None
        self.ready.clear()
        self._worker.process.kill()
        return self._worker.pid

    def retire(self) -> None:
        """SIGTERM, as at a restart that somebody ordered: it finishes what it has."""
        assert self._worker is not None
        self.ready.clear()
        self._worker.process.terminate()

    async def until_ready(self) -> None:
        """Return when it serves. Raises TimeoutError."""
        await asyncio.wait_for(self.ready.wait(), READY_SECONDS)

    async def _keep(self) -> None:
        while not self._over:
            async with self._home.worker(**self._settings) as self._worker:
                self.lives += 1
                await self._worker.process.wait()
                self.ready.clear()
            (self._home.folder / "stderr").unlink()  # of this life; it was told at its end

    def _hear(self) -> None:
        known = len(self._home.messages)
        news = self._home.told_so_far()[known:]
        if any(message.startswith("READY=1") for message in news):
            self.ready.set()


@dataclass(frozen=True)
class Asked:
    """One request of a caller; times of ``time.monotonic()``."""

    began: float
    ended: float
    status: int  # 0: no answer came

    @property
    def seconds(self) -> float:
        """How long its caller waited."""
        return self.ended - self.began


@dataclass
class Callers:
    """Callers that ask one thing after the other; each must get its own answer.

    :ivar faults: what must not be, in words.
    """

    door: FrontDoor
    sizes: tuple[int, ...]
    chance: random.Random
    asked: list[Asked] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    over: bool = False
    _serial: int = 0
    _waiting: dict[int, float] = field(default_factory=dict)  # since when

    async def go_on(self) -> None:
        """One caller, until ``over``."""
        while not self.over:
            await self.ask()

    async def until_answered(self, moment: float) -> None:
        """Return when nobody waits any more who had asked before that moment."""
        waiting = self._waiting
        while any(began < moment for began in waiting.values()):  # noqa: ASYNC110 - of all of them
            await asyncio.sleep(LOOK_SECONDS)

    async def ask(self) -> Asked:
        """One request and what became of it."""
        serial = self._serial = self._serial + 1
        name = f"request-{serial}"
        body = name.encode().ljust(self.chance.choice(self.sizes), b".")
        began = self._waiting[serial] = time.monotonic()
        try:
            reply = await self.door.ask(f"/predict?question={name}", body)
            status = reply.status
            if status == 200:
                self._judge(name, body, reply)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            status = 0
            self.faults.append(f"{name} got no answer: {error!r}")
        del self._waiting[serial]
        one = Asked(began, time.monotonic(), status)
        self.asked.append(one)
        return one

    def _judge(self, name: str, body: bytes, reply: Reply) -> None:
        answer = reply.json["answer"]
        own = name, hashlib.sha256(body).hexdigest()
        if (answer["question"], answer["body_sha256"]) != own:
            self.faults.append(f"{name} got another's answer")
