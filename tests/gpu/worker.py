# SPDX-License-Identifier: Apache-2.0
"""A worker process for the trials: it takes the size of a batch and says how long it ran.

The GPU is a real one with torch, or the simulator's, whose attach socket a simulated library's
process is told by ``GPUWARDEN_SIM_ATTACH``.
"""

import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from tests.gpu.decode import DecodeLoad

ANSWER_TOKENS = 60  # with four images some 0.3 s on an H200
SIMULATED_SOCKET = "GPUWARDEN_SIM_ATTACH"
SIMULATED_SECONDS = 0.2
SIMULATED_LOAD = 0.45
READY = 0.0


class WorkerGoneError(RuntimeError):
    """The worker ended; its own message says why."""


class TrialWorker:
    """The process, and what it is doing. A context manager."""

    def __init__(self, uuid: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, uuid), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "TrialWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(30)

    def wait_until_ready(self, seconds: float) -> None:
        """Its model is loaded and warm. Raises WorkerGoneError."""
        if not self._pipe.poll(seconds):
            raise WorkerGoneError(f"not ready within {seconds:g} s")
        self._receive()

    def start(self, batch: int) -> None:
        """Give it a batch."""
        self._pipe.send(batch)

    def answer(self, wait_seconds: float) -> float | None:
        """The GPU's seconds for the batch, or None if it isn't done within ``wait_seconds``."""
        return self._receive() if self._pipe.poll(max(0.0, wait_seconds)) else None

    def _receive(self) -> float:
        try:
            return float(self._pipe.recv())
        except EOFError:
            raise WorkerGoneError("its process ended") from None


def _serve(pipe: Connection, uuid: str) -> None:
    run = _engine(uuid)
    pipe.send(READY)
    while True:
        try:
            batch = int(pipe.recv())
        except EOFError:
            return
        pipe.send(run(batch))


def _engine(uuid: str) -> Callable[[int], float]:
    attach = os.environ.get(SIMULATED_SOCKET)
    return SimulatedLoad(attach, uuid).run if attach else DecodeLoad(ANSWER_TOKENS).run


class SimulatedLoad:
    """Work on a simulated card: its load for a while."""

    def __init__(self, attach: str, uuid: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(attach)
        self._lines = self._socket.makefile("rb")
        self._say({"uuid": uuid, "vram_bytes": 1 << 30, "load": 0.0})

    def run(self, _: int) -> float:
        """One batch."""
        self._say({"load": SIMULATED_LOAD})
        time.sleep(SIMULATED_SECONDS)
        self._say({"load": 0.0})
        return SIMULATED_SECONDS

    def _say(self, message: dict[str, object]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        answer = json.loads(self._lines.readline())
        if not answer["ok"]:
            sys.exit(f"the simulator says: {answer['error']}")
