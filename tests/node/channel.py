# SPDX-License-Identifier: Apache-2.0
"""The host's end of the agent's port: commands, their output as it comes, files in and out."""

import json
import re
import select
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.node import agent

CHUNK_BYTES = 1 << 16
RECEIVE_BYTES = 1 << 20
# How much longer than the agent the host waits: the agent kills and answers by itself.
GRACE_SECONDS = 30.0

Argv = str | Sequence[str]


class NodeError(Exception):
    """The node did not do what was asked of it: not started, not answering, command failed."""


class NodeLostError(NodeError):
    """The node's virtual machine has ended, or its agent answers nothing any more."""


@dataclass(frozen=True)
class Result:
    """How a command in the node ended."""

    command: Argv
    status: int  # exit status; minus the signal's number where a signal ended it
    stdout: bytes
    stderr: bytes
    timed_out: bool = False

    @property
    def text(self) -> str:
        """Standard output as text, without the last newline."""
        return self.stdout.decode(errors="replace").rstrip("\n")

    @property
    def error_text(self) -> str:
        """Standard error as text, without the last newline."""
        return self.stderr.decode(errors="replace").rstrip("\n")


class CommandFailedError(NodeError):
    """A command that had to succeed ended with another status, or ran past its time."""

    def __init__(self, result: Result):
        self.result = result
        how = "ran past its time limit" if result.timed_out else f"ended with {result.status}"
        super().__init__(
            f"{result.command!r} {how}\n"
            f"stdout: {tail(result.text)}\nstderr: {tail(result.error_text)}"
        )


def tail(text: str, characters: int = 4000) -> str:
    """The end of ``text``, at most ``characters`` long."""
    return text if len(text) <= characters else f"[...]{text[-characters:]}"


class Process:
    """A command that runs in the node.  Its output is kept until it is read."""

    def __init__(self, channel: "Channel", number: int, command: Argv):
        self._channel = channel
        self._number = number
        self.command = command
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.ended: dict[str, Any] | None = None
        self.on_output: Callable[[int, bytes], None] | None = None
        self._searched = 0

    def send(self, data: bytes) -> None:
        """Gives ``data`` to the command's standard input."""
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            self._channel.send(agent.INPUT, self._number, chunk)

    def end_input(self) -> None:
        """Ends the command's standard input."""
        self._channel.send(agent.INPUT, self._number, b"")

    def signal(self, number: int) -> None:
        """Sends a signal to the command's process group."""
        self._channel.send(agent.SIGNAL, self._number, json.dumps(number).encode())

    def resize(self, rows: int, columns: int) -> None:
        """Tells the command's terminal its size."""
        self._channel.send(agent.RESIZE, self._number, json.dumps([rows, columns]).encode())

    def read_until(self, pattern: str, timeout_seconds: float) -> re.Match[bytes]:
        """Waits until ``pattern`` (multi-line regular expression) occurs in standard output.

        The next call looks behind this match.  Raises ``NodeError`` when the command ends or the
        time is over before.
        """
        deadline = time.monotonic() + timeout_seconds
        compiled = re.compile(pattern.encode(), re.MULTILINE)
        while not (match := compiled.search(self.stdout, self._searched)):
            seen = tail(self.stdout[self._searched :].decode(errors="replace"))
            if self.ended is not None:
                raise NodeError(f"{self.command!r} ended; {pattern!r} did not come: {seen}")
            if not self._channel.pump(deadline):
                raise NodeError(
                    f"{pattern!r} did not come from {self.command!r} "
                    f"in {timeout_seconds} s, only: {seen}"
                )
        self._searched = match.end()
        return match

    def wait(self, timeout_seconds: float | None = None) -> Result:
        """Waits for the command's end.

        Raises ``NodeError`` where it could not be started, ``NodeLostError`` when the answer does
        not come in time.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.ended is None:
            if not self._channel.pump(deadline):
                raise NodeLostError(f"{self.command!r}: no end within {timeout_seconds} s")
        if self.ended["error"]:
            raise NodeError(f"{self.command!r}: {self.ended['error']}")
        return Result(
            self.command,
            self.ended["status"],
            bytes(self.stdout),
            bytes(self.stderr),
            self.ended["timed_out"],
        )

    def take(self, kind: int, payload: bytes) -> None:
        """A frame from the agent for this command."""
        if kind == agent.EXIT:
            self.ended = json.loads(payload)
        elif self.on_output:
            self.on_output(kind, payload)
        else:
            (self.stdout if kind == agent.OUTPUT else self.stderr).extend(payload)


class Channel:
    """All commands of one node over one socket; used from one thread."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._connection.setblocking(False)
        self._received = bytearray()
        self._processes: dict[int, Process] = {}
        self._next_number = 1
        self._greetings: deque[bytes] = deque()

    def close(self) -> None:
        """Ends the connection; commands still running go on in the node, unheard."""
        self._connection.close()

    def greet(self, timeout_seconds: float) -> None:
        """Waits until the agent answers; raises ``NodeLostError`` when it does not in time."""
        greeting = str(time.monotonic_ns()).encode()
        self.send(agent.HELLO, 0, greeting)
        deadline = time.monotonic() + timeout_seconds
        while greeting not in self._greetings:
            if not self.pump(deadline):
                raise NodeLostError(f"the node's agent did not answer within {timeout_seconds} s")
        self._greetings.clear()

    def open(self, command: Argv, order: Mapping[str, Any]) -> Process:
        """Starts an order of ``Agent.open``."""
        number, self._next_number = self._next_number, self._next_number + 1
        process = Process(self, number, command)
        self._processes[number] = process
        self.send(agent.OPEN, number, json.dumps(order).encode())
        return process

    def run(
        self, command: Argv, order: Mapping[str, Any], stdin: bytes, timeout_seconds: float
    ) -> Result:
        """Runs an order to its end; raises as ``Process.wait``."""
        process = self.open(command, {"timeout_seconds": timeout_seconds, **order})
        process.send(stdin)
        process.end_input()
        return process.wait(timeout_seconds + GRACE_SECONDS)

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """Sends a frame, reading meanwhile: both sides may have much to say at once."""
        view = memoryview(agent.HEADER.pack(kind, number, len(payload)) + payload)
        while view:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:
                readable, _, _ = select.select(
                    [self._connection], [self._connection], [], GRACE_SECONDS
                )
                if readable:
                    self._receive()
            except OSError as error:
                raise NodeLostError(f"the node's virtual machine has ended ({error})") from error

    def pump(self, deadline: float | None, also: Sequence[int] = ()) -> set[int]:
        """Waits for frames (or for input on a descriptor of ``also``) and takes them.

        Returns the descriptors that had something; empty when ``deadline`` (monotonic seconds)
        passed without.
        """
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        ours = self._connection.fileno()
        readable, _, _ = select.select([ours, *also], [], [], wait)
        if ours in readable:
            self._receive()
        return set(readable)

    def _receive(self) -> None:
        try:
            data = self._connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise NodeLostError(f"the node's virtual machine has ended ({error})") from error
        if not data:
            raise NodeLostError("the node's virtual machine has ended")
        self._received += data
        offset = 0
        while len(self._received) >= offset + agent.HEADER.size:
            kind, number, length = agent.HEADER.unpack_from(self._received, offset)
            end = offset + agent.HEADER.size + length
            if len(self._received) < end:
                break
            self._take(kind, number, bytes(self._received[offset + agent.HEADER.size : end]))
            offset = end
        del self._received[:offset]

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == agent.HELLO:
            self._greetings.append(payload)
            return
        process = self._processes[number]
        process.take(kind, payload)
        if kind == agent.EXIT:
            del self._processes[number]


def shell_argv(command: Argv) -> list[str]:
    """A string is a line for bash, anything else the arguments themselves."""
    return ["/bin/bash", "-c", command] if isinstance(command, str) else list(command)


def check_output(*argv: str) -> str:
    """Runs a command of the host and returns its output; raises ``NodeError`` where it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NodeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
