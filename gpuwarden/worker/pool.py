# SPDX-License-Identifier: Apache-2.0
"""The worker's CPU processes: started, fed one request each, replaced when they die.

Each is an exec of this interpreter with its own socket pair. Not multiprocessing: fork would
copy a process that holds a CUDA context and threads, and spawn leaves named semaphores and a
resource tracker behind when it is killed. An exec'd process inherits nothing but its socket, can
be started at any time, the GPU in use or not, and ends when the socket closes.
"""

import asyncio
import itertools
import logging
import os
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple, Union

from gpuwarden.worker.buffers import Extent
from gpuwarden.worker.channel import Channel, close_all
from gpuwarden.worker.faults import Failure, raise_error_of
from gpuwarden.worker.frames import Frame, FrameType
from gpuwarden.worker.handover import HandoverError, unpack
from gpuwarden.worker.settings import Settings

_log = logging.getLogger(__name__)

ATTEMPTS = 2  # an image that ends two processes would end a third
RESPAWN_FIRST_SECONDS = 0.1
RESPAWN_LONGEST_SECONDS = 2.0
EXIT_SECONDS = 2.0  # an idle process ends within milliseconds of its socket's end
_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from gpuwarden.worker.preprocess import main; sys.exit(main(int(sys.argv[2])))"
)
_APPLICATION = str(Path(__file__).resolve().parents[2])
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


class PreparationError(Exception):
    """A CPU process cannot start; the text says why."""


@dataclass  # not frozen, as Frame
class Prepared:
    """What preprocess() made of a request; never changed."""

    value: Any
    seconds: float
    terms: Optional[Dict[str, Any]] = None  # of a chat: how its caller wants the answer
    alike: str = ""  # its parameters, the same text where they are the same


Outcome = Union[Prepared, Failure]


@dataclass(frozen=True)
class StoredImage:
    """An image that was sent before, under its id."""

    identifier: str
    media_type: str
    extent: Extent


@dataclass
class Task:
    """One request to be prepared. ``serial`` is the worker's own number for it."""

    serial: int
    meta: Dict[str, Any]
    body: Union[bytes, Extent]
    images: Tuple["StoredImage", ...] = ()
    deadline_nanoseconds: int = 0  # CLOCK_BOOTTIME; 0 = none
    attempts: int = 0


class _Process:
    """One CPU process as the worker sees it."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self.process = process
        self.connection = connection
        self.channel: Optional[Channel] = None
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.known: Dict[int, bool] = {}
        self.task: Optional[Task] = None
        self.alarm: Optional[asyncio.TimerHandle] = None
        self.overdue = False

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class Pool:
    """``on_done(serial, outcome)`` is called once for each submitted and not withdrawn task."""

    def __init__(self, settings: Settings, on_done: Callable[[int, Outcome], None]) -> None:
        self._settings = settings
        self._on_done = on_done
        self._queue: Deque[Task] = deque()
        self._processes: List[_Process] = []
        self._keepers: List[asyncio.Task[None]] = []
        self._closing = False

    async def start(self) -> None:
        """Start all processes and wait until each is ready. Raises PreparationError."""
        loop = asyncio.get_running_loop()
        first = [loop.create_future() for _ in range(self._settings.preprocess_processes)]
        self._keepers = [loop.create_task(self._keep(future)) for future in first]
        for keeper in self._keepers:
            keeper.add_done_callback(raise_error_of)
        await asyncio.gather(*first)

    def submit(self, task: Task) -> None:
        """Have a request prepared as soon as a process is free."""
        self._queue.append(task)
        self._feed()

    def withdraw(self, serial: int) -> bool:
        """Take a task back that no process has begun; False if it is too late."""
        for task in self._queue:
            if task.serial == serial:
                self._queue.remove(task)
                return True
        return False

    def retire(self, numbers: List[int]) -> None:
        """Have buffers unmapped in every process that mapped them."""
        for process, number in itertools.product(self._processes, numbers):
            if process.known.pop(number, None) and process.channel:
                process.channel.send(Frame(FrameType.RETIRE, meta={"buffer": number}))

    def process_ids(self) -> List[int]:
        """The processes that run now."""
        return [process.process.pid for process in self._processes]

    async def close(self) -> None:
        """End every process: by its socket's end, by SIGKILL if it doesn't heed that."""
        self._closing = True
        for process in self._processes:
            if process.channel:
                process.channel.close()
        waits = [asyncio.ensure_future(process.process.wait()) for process in self._processes]
        if waits:
            await asyncio.wait(waits, timeout=EXIT_SECONDS)
        for process in self._processes:
            process.kill()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, *waits, return_exceptions=True)

    async def _keep(self, first: "asyncio.Future[None]") -> None:
        """Have one process running for as long as the pool is open."""
        pause = RESPAWN_FIRST_SECONDS
        while not self._closing:
            try:
                await self._live_once(first)
                pause = RESPAWN_FIRST_SECONDS
            except PreparationError as error:
                if not first.done():
                    first.set_exception(error)
                _log.error("a CPU process did not start: %s", error)
            if not self._closing:
                await asyncio.sleep(pause)
                pause = min(pause * 2, RESPAWN_LONGEST_SECONDS)

    async def _live_once(self, first: "asyncio.Future[None]") -> None:
        """One process from its start to its end. Raises PreparationError if it never got ready."""
        try:
            process = await self._spawn()
        except OSError as error:  # no task or memory left in the unit
            raise PreparationError(f"no process can be started: {error.strerror}") from error
        self._processes.append(process)
        try:
            await self._until_started(process)
            if not first.done():
                first.set_result(None)
            self._feed()
        finally:
            await process.process.wait()
            self._processes.remove(process)
            self._bury(process)

    async def _spawn(self) -> _Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        environment["CUDA_VISIBLE_DEVICES"] = ""  # the card is the GPU thread's alone
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-c",
                _BOOTSTRAP,
                _APPLICATION,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        entry = _Process(process, ours)
        entry.channel = Channel(
            ours,
            lambda frame, descriptors: self._on_frame(entry, frame, descriptors),
            lambda reason: self._on_closed(entry),
        )
        return entry

    async def _until_started(self, entry: _Process) -> None:
        assert entry.channel is not None
        meta = {
            "engine": self._settings.engine,
            "engine_path": self._settings.engine_path,
            "context": asdict(self._settings.context()),
            "memory_bytes": self._settings.preprocess_memory_bytes,
            "log_level": self._settings.log_level,
        }
        entry.channel.send(Frame(FrameType.WELCOME, meta=meta))
        await entry.started

    def _on_frame(self, entry: _Process, frame: Frame, descriptors: List[int]) -> None:
        if frame.type == FrameType.RESULT and entry.task and frame.request == entry.task.serial:
            self._finish(entry, frame, descriptors)
            return
        close_all(descriptors)
        if frame.type == FrameType.HELLO and not entry.started.done():
            if frame.meta["ok"]:
                entry.started.set_result(None)
            else:
                entry.started.set_exception(PreparationError(frame.meta["error"]))

    def _finish(self, entry: _Process, frame: Frame, descriptors: List[int]) -> None:
        task = self._release(entry)
        assert task is not None
        meta = frame.meta
        outcome: Outcome
        if meta["ok"]:
            try:
                value = unpack(meta, frame.body, descriptors[0] if descriptors else None)
                outcome = Prepared(value, meta["seconds"], meta.get("terms"), meta["alike"])
            except HandoverError as error:
                outcome = Failure("engine_error", str(error), "HandoverError")
        else:
            failure = meta["kind"], meta["message"], meta["location"], meta["param"]
            outcome = Failure(*failure)
        self._on_done(task.serial, outcome)
        self._feed()

    def _release(self, entry: _Process) -> Optional[Task]:
        task, entry.task = entry.task, None
        if entry.alarm:
            entry.alarm.cancel()
            entry.alarm = None
        return task

    def _on_closed(self, entry: _Process) -> None:
        # Without its socket it is of no use, should it still be alive.
        entry.kill()
        if not entry.started.done():
            entry.started.set_exception(PreparationError("it ended while starting"))

    def _bury(self, entry: _Process) -> None:
        """After a process has ended: its request is tried once more, or fails."""
        if entry.channel:
            entry.channel.close()
        status = entry.process.returncode
        task = self._release(entry)
        if self._closing:
            return
        _log.warning("a CPU process ended with status %s%s", status, ", at work" if task else "")
        if task is None:
            return
        if entry.overdue:
            limit = self._settings.execution_timeout_seconds
            text = f"preprocess() did not end within {limit:g} s (execution_timeout_seconds)"
            self._on_done(task.serial, Failure("execution_timeout", text, "preprocess"))
        elif task.attempts < ATTEMPTS:
            self._queue.appendleft(task)
            self._feed()
        else:
            text = f"{ATTEMPTS} processes died preparing this request, the last of status {status}"
            self._on_done(task.serial, Failure("worker_crashed", text, "preprocess"))

    def _feed(self) -> None:
        for entry in self._processes:
            ready = entry.started.done() and not entry.started.exception()
            while ready and self._queue and not entry.task and not _is_closed(entry):
                self._begin(entry, self._queue.popleft())

    def _begin(self, entry: _Process, task: Task) -> None:
        failure = _unfit(task)
        if failure:
            asyncio.get_running_loop().call_soon(self._on_done, task.serial, failure)
            return
        task.attempts += 1
        entry.task = task
        entry.alarm = asyncio.get_running_loop().call_later(
            self._settings.execution_timeout_seconds, self._overdue, entry
        )
        assert entry.channel is not None
        descriptors: List[int] = []
        meta, inline = dict(task.meta), b""
        if isinstance(task.body, Extent):
            meta["body"] = _lend(entry, task.body, descriptors)
        else:
            meta["body"], inline = {}, task.body
        meta["images"] = [
            {
                "id": image.identifier,
                "media_type": image.media_type,
                **_lend(entry, image.extent, descriptors),
            }
            for image in task.images
        ]
        frame = Frame(FrameType.JOB, request=task.serial, meta=meta, body=inline)
        entry.channel.send(frame, descriptors)

    def _overdue(self, entry: _Process) -> None:
        entry.overdue = True
        entry.kill()


def _lend(entry: _Process, extent: Extent, descriptors: List[int]) -> Dict[str, Any]:
    """Where a body lies, for that process; its buffer's descriptor goes along the first time."""
    lent = extent.buffer
    where = {"buffer": lent.number, "size": lent.size}
    where.update(offset=extent.offset, length=extent.length)
    if lent.number not in entry.known:
        entry.known[lent.number] = True
        descriptors.append(lent.descriptor)
        where["fd"] = True
    return where


def _is_closed(entry: _Process) -> bool:
    return entry.channel is None or entry.channel.closed


def _extents(task: Task) -> Iterator[Extent]:
    if isinstance(task.body, Extent):
        yield task.body
    for image in task.images:
        yield image.extent


def _unfit(task: Task) -> Optional[Failure]:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if task.deadline_nanoseconds and now > task.deadline_nanoseconds:
        return Failure("deadline_exceeded", "its deadline passed before its turn came")
    if any(extent.buffer.closed for extent in _extents(task)):
        return Failure("unknown_buffer", "its buffer was retired before its turn came")
    return None
