# SPDX-License-Identifier: Apache-2.0
"""The other end of the worker: a small gateway, a notify socket, a worker process."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gpuwarden.worker.answers import FORM, unpack
from gpuwarden.worker.frames import RECORD_LIMIT_BYTES, Frame, FrameType, encode
from gpuwarden.worker.together import frames_in, together

ROOT = str(Path(__file__).parents[2])
BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from gpuwarden.worker.host import main; sys.exit(main(sys.argv[1:]))"
)
DEADLINE_SECONDS = 30.0
SEALS = 0x17  # seal, shrink, grow, future write


class LentBuffer:
    """A buffer as the gateway makes it: one writable mapping here, none for anybody else."""

    def __init__(self, number: int, content: bytes) -> None:
        self.number = number
        self.size = len(content)
        self.descriptor = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(self.descriptor, content)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)

    def body(self, *, with_descriptor: bool, length: int | None = None) -> dict[str, Any]:
        wanted = self.size if length is None else length
        body = {"buffer": self.number, "size": self.size, "offset": 0, "length": wanted}
        return {**body, "fd": True} if with_descriptor else body

    def close(self) -> None:
        os.close(self.descriptor)


def each_answer(frame: Frame) -> list[Frame]:
    """The RESULTs that an ANSWERS stands for; any other frame as it is."""
    if frame.type != FrameType.ANSWERS:
        return [frame]
    seconds, answers = unpack(frame)
    timing = {"predict_seconds": seconds}
    return [
        Frame(
            FrameType.RESULT,
            request,
            lease,
            frame.batch,
            meta={"ok": True, "answer": json.loads(data), "timing": timing},
        )
        for request, lease, data in answers
    ]


class Connection:
    """One worker's connection as the gateway sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._leases = 1000
        self.hello: Frame = Frame(0)
        self.seen: list[Frame] = []
        self.sizes: list[int] = []  # of the records, in frames
        self.kinds: list[int] = []  # of the frames, as they came
        self._came: deque[Frame] = deque()

    async def next_frame(self) -> Frame | None:
        if not self._came:
            loop = asyncio.get_running_loop()
            receiving = loop.sock_recv(self._connection, RECORD_LIMIT_BYTES)
            record = await asyncio.wait_for(receiving, DEADLINE_SECONDS)
            if not record:
                return None
            frames = frames_in(record)
            self.sizes.append(len(frames))
            self.kinds += [frame.type for frame in frames]
            for frame in frames:
                self._came.extend(each_answer(frame))
        frame = self._came.popleft()
        self.seen.append(frame)
        return frame

    async def next_of(self, kind: FrameType) -> Frame:
        async with asyncio.timeout(DEADLINE_SECONDS):  # heartbeats come for ever
            while True:
                frame = await self.next_frame()
                assert frame is not None, f"the connection ended before a {kind.name}"
                if frame.type == kind:
                    return frame

    async def next_state(self, state: str) -> Frame:
        while True:
            frame = await self.next_of(FrameType.STATE)
            if frame.meta["state"] == state:
                return frame

    async def results(self, count: int) -> dict[int, Frame]:
        frames = [await self.next_of(FrameType.RESULT) for _ in range(count)]
        return {frame.request: frame for frame in frames}

    async def until_closed(self) -> list[Frame]:
        frames = []
        while (frame := await self.next_frame()) is not None:
            frames.append(frame)
        return frames

    def send(self, frame: Frame, descriptor: int | None = None) -> None:
        descriptors = [] if descriptor is None else [descriptor]
        socket.send_fds(self._connection, [encode(frame)], descriptors)

    def send_raw(self, record: bytes, descriptors: list[int] | None = None) -> None:
        """Anything at all."""
        socket.send_fds(self._connection, [record], descriptors or [])

    def send_together(self, frames: list[Frame]) -> None:
        """In one record, as long as one holds them."""
        for record in together([encode(frame) for frame in frames]):
            self.send_raw(record)

    def welcome(self, **meta: Any) -> None:
        self.send(Frame(FrameType.WELCOME, meta={"gateway": "test", "answers": FORM, **meta}))

    def job(
        self,
        request: int,
        content: bytes | LentBuffer = b"",
        *,
        batch: int | None = None,
        count: int = 1,
        first_time: bool = True,
        lease: int | None = None,
        **meta: Any,
    ) -> None:
        """Send a request; a batch of one unless said otherwise."""
        frame, descriptor = self.job_frame(
            request, content, batch, count, lease, meta, first_time=first_time
        )
        self.send(frame, descriptor)

    def job_frame(
        self,
        request: int,
        content: bytes | LentBuffer,
        batch: int | None,
        count: int,
        lease: int | None,
        meta: dict[str, Any],
        *,
        first_time: bool = True,
    ) -> tuple[Frame, int | None]:
        """A JOB, and the descriptor that goes with it."""
        body: dict[str, Any] = {"length": len(content) if isinstance(content, bytes) else 0}
        inline, descriptor = b"", None
        if isinstance(content, LentBuffer):
            body = content.body(with_descriptor=first_time)
            descriptor = content.descriptor if first_time else None
        else:
            inline = content
        deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 60 * 10**9
        whole = {
            "question": "what is it?",
            "media_type": "application/octet-stream",
            "parameters": {},
            "deadline_boottime_ns": deadline,
            "body": body,
            **meta,
        }
        number = request if batch is None else batch
        frame = Frame(FrameType.JOB, request, lease or request + 500, number, count, whole, inline)
        return frame, descriptor

    def close(self) -> None:
        self._connection.close()


@dataclass
class Node:
    """Sockets of a node, and the workers started on it."""

    folder: Path
    dispatch: socket.socket
    notify: socket.socket
    messages: list[str] = field(default_factory=list)

    async def accept(self, **welcome: Any) -> Connection:
        """The next worker that connects, welcomed."""
        connection = await self.accept_silently()
        connection.welcome(**welcome)
        return connection

    async def accept_ready(self) -> Connection:
        """The next worker that connects, once it asks for work."""
        connection = await self.accept()
        await connection.next_of(FrameType.CREDIT)
        return connection

    async def accept_silently(self) -> Connection:
        loop = asyncio.get_running_loop()
        accepted, _ = await asyncio.wait_for(loop.sock_accept(self.dispatch), DEADLINE_SECONDS)
        accepted.setblocking(False)
        connection = Connection(accepted)
        connection.hello = await connection.next_of(FrameType.HELLO)
        return connection

    async def told_systemd(self, start: str) -> str:
        """The next notify message that begins so."""
        loop = asyncio.get_running_loop()
        while True:
            receiving = loop.sock_recv(self.notify, 4096)
            message = (await asyncio.wait_for(receiving, DEADLINE_SECONDS)).decode("ascii")
            self.messages.append(message)
            if message.startswith(start):
                return message

    def gate(self, name: str) -> "Gate":
        """A new gate of that name."""
        return Gate(self.folder, name)

    def told_so_far(self) -> list[str]:
        """All notify messages until now."""
        while True:
            try:
                self.messages.append(self.notify.recv(4096).decode("ascii"))
            except BlockingIOError:
                return self.messages

    @asynccontextmanager
    async def scripted(
        self, name: str = "Scripted", *, welcome: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[tuple["Worker", Connection]]:
        """A worker with the Scripted model class, or another of its kind, connected and ready."""
        async with self.worker(engine=f"model_classes:{name}", **settings) as worker:
            connection = await self.accept(**(welcome or {}))
            await connection.next_of(FrameType.CREDIT)
            yield worker, connection

    @asynccontextmanager
    async def worker(
        self,
        *,
        environment: dict[str, str] | None = None,
        within: tuple[str, ...] = (),
        **settings: Any,
    ) -> AsyncIterator["Worker"]:
        """A worker process with these settings; killed at the end if it still lives.

        ``within`` are the words of a command that becomes the worker, as setpriv does.
        """
        whole = {
            "number": 0,
            "engine": "echo",
            "engine_path": [str(Path(__file__).parent)],
            "model": "test-model",
            "options": {},
            "gpu_uuid": None,
            "gpu_index": None,
            "max_batch": 2,
            "preprocess_processes": 1,
            "drain_seconds": 10,
            "execution_timeout_seconds": 20,
            "dispatch_socket": str(self.folder / "dispatch.sock"),
            "log_level": "debug",
            **settings,
        }
        process = await start_worker(
            json.dumps(whole).encode(), self.folder, environment or {}, within
        )
        worker = Worker(process, self.folder / "stderr")
        try:
            yield worker
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            sys.stderr.write(worker.log())


async def start_worker(
    settings: bytes, folder: Path, environment: dict[str, str], within: tuple[str, ...] = ()
) -> asyncio.subprocess.Process:
    descriptor = os.memfd_create("settings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, settings)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0xF)
    arguments = ["-I", "-c", BOOTSTRAP, ROOT, "--settings-fd", str(descriptor)]
    interpreter = os.environ.get("GPUWARDEN_TEST_WORKER_PYTHON", sys.executable)
    with (folder / "stderr").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(*within, interpreter),
            *arguments,
            pass_fds=[descriptor],
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify.sock"), **environment},
        )
    os.close(descriptor)
    return process


@dataclass
class Worker:
    """A worker process."""

    process: asyncio.subprocess.Process
    log_file: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_file.read_text()

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), DEADLINE_SECONDS)


class Gate:
    """A FIFO between the test and a model class: an event, not a time."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = str(folder / name)
        os.mkfifo(self.path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def open(self) -> None:
        """Let one who waits go on."""
        os.write(self._descriptor, b".")

    async def reached(self) -> None:
        """Wait until the model class says so."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.add_reader(self._descriptor, event.set)
        try:
            await asyncio.wait_for(event.wait(), DEADLINE_SECONDS)
        finally:
            loop.remove_reader(self._descriptor)
        os.read(self._descriptor, 1)


def children_of(pid: int) -> list[int]:
    """The processes that a process started and that still are, zombies among them."""
    return [child.pid for child in psutil.Process(pid).children()]


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def until(condition: Any, what: str) -> None:
    """Wait for a state of the machine that sends no event."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_SECONDS} s: {what}"
        await asyncio.sleep(0.02)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_node() -> Node:
    folder = Path(tempfile.mkdtemp(prefix="gw"))  # short: a socket's path ends at 107 bytes
    dispatch = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dispatch.bind(str(folder / "dispatch.sock"))
    dispatch.listen()
    dispatch.setblocking(False)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(folder / "notify.sock"))
    notify.setblocking(False)
    return Node(folder, dispatch, notify)


def close_node(node: Node) -> None:
    node.dispatch.close()
    node.notify.close()
    shutil.rmtree(node.folder)
