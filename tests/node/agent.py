#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""Runs commands in the guest for the host: frames over one virtio-serial port.

Both sides send frames: a header (``HEADER``: kind, channel, length) and a payload.  A channel is
one command; several run side by side.

======= ============== =====================================================================
kind    sent by        payload
======= ============== =====================================================================
HELLO   host, agent    any bytes, sent back as they are: both ends are there
OPEN    host           JSON: ``{"do": "run"|"put"|"get"|"clock", ...}``, see ``Agent.open``
INPUT   host           bytes for the command's standard input, or for the file; empty ends it
SIGNAL  host           JSON: a signal number for the command's process group
RESIZE  host           JSON: ``[rows, columns]`` of the command's terminal
OUTPUT  agent          bytes of standard output, or of the file
ERRORS  agent          bytes of standard error
EXIT    agent          JSON: ``{"status": int, "timed_out": bool, "error": str or null}``
======= ============== =====================================================================

A command ends when its first process ends; what that had written until then is delivered, and a
child left behind in the background does not hold the answer back.  After its time limit the
command's whole process group is killed.

Standard library only: the guest runs this file as it is.  The host imports the names from it.
"""

import fcntl
import json
import os
import pwd
import selectors
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

PORT = "/dev/virtio-ports/org.gpuwarden.node"
HEADER = struct.Struct(">BII")
HELLO, OPEN, INPUT, SIGNAL, RESIZE, OUTPUT, ERRORS, EXIT = range(1, 9)
CHUNK_BYTES = 1 << 16
RETRY_SECONDS = 0.02  # an open port without a host reads as end of file: look again this often
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Command:
    """One command of a channel: its process and the ends of its pipes that are still open."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int | None):
        self.process = process
        self.terminal = terminal
        self.exit_watch = os.pidfd_open(process.pid)
        self.pending = bytearray()
        self.input_ended = False
        self.deadline = float("inf")
        self.timed_out = False
        self.input: int | None
        if terminal is not None:
            self.outputs = {terminal: OUTPUT}
            self.input = os.dup(terminal)
        else:
            assert process.stdin and process.stdout and process.stderr
            # Ours from here on: each is closed when its stream ends.
            self.outputs = {
                detach(process.stdout): OUTPUT,
                detach(process.stderr): ERRORS,
            }
            self.input = detach(process.stdin)
        for descriptor in (self.input, *self.outputs):
            os.set_blocking(descriptor, False)


def detach(stream: IO[bytes]) -> int:
    """A descriptor of our own for what ``stream`` holds; ``stream`` is closed."""
    descriptor = os.dup(stream.fileno())
    stream.close()
    return descriptor


class Upload:
    """A file that the host is sending: written beside its place, moved there when complete."""

    def __init__(self, path: str, mode: int):
        self.path = path
        self.mode = mode
        self.partial = f"{path}.partial"
        self.file = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


class Agent:
    """The loop: frames in, frames out, processes in between."""

    def __init__(self, port: int, ends: bool):
        self.port = port
        self.ends = ends  # whether end of file is the end, or a host that comes again
        self.selector = selectors.DefaultSelector()
        self.received = bytearray()
        self.commands: dict[int, Command] = {}
        self.uploads: dict[int, Upload] = {}
        self.selector.register(port, selectors.EVENT_READ, self.receive)

    def serve(self) -> None:
        while True:
            nearest = min((c.deadline for c in self.commands.values()), default=float("inf"))
            wait = None if nearest == float("inf") else max(0.0, nearest - time.monotonic())
            for key, _ in self.selector.select(wait):
                if self.selector.get_map().get(key.fd) is key:  # an earlier event may end it
                    key.data()
            self.kill_overdue()

    def kill_overdue(self) -> None:
        now = time.monotonic()
        for command in self.commands.values():
            if command.deadline <= now:
                command.deadline = float("inf")
                command.timed_out = True
                kill_group(command.process.pid, signal.SIGKILL)

    # -- frames -----------------------------------------------------------------------------

    def send(self, kind: int, channel: int, payload: bytes = b"") -> None:
        """Blocks while the host does not read: that is what holds a flooding command back."""
        view = memoryview(HEADER.pack(kind, channel, len(payload)) + payload)
        while view:
            view = view[os.write(self.port, view) :]

    def finish(self, channel: int, status: int, timed_out: bool = False, error: str = "") -> None:
        answer = {"status": status, "timed_out": timed_out, "error": error or None}
        self.send(EXIT, channel, json.dumps(answer).encode())

    def receive(self) -> None:
        data = os.read(self.port, CHUNK_BYTES)
        if not data:
            if self.ends:
                sys.exit(0)
            time.sleep(RETRY_SECONDS)
        self.received += data
        while len(self.received) >= HEADER.size:
            kind, channel, length = HEADER.unpack_from(self.received)
            if len(self.received) < HEADER.size + length:
                return
            payload = bytes(self.received[HEADER.size : HEADER.size + length])
            del self.received[: HEADER.size + length]
            self.handle(kind, channel, payload)

    def handle(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == HELLO:
            self.send(HELLO, channel, payload)
        elif kind == OPEN:
            try:
                self.open(channel, json.loads(payload))
            except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
                self.finish(channel, 127, error=f"{type(error).__name__}: {error}")
        elif channel in self.uploads:
            self.continue_upload(channel, payload)
        elif channel in self.commands:
            self.command_frame(kind, self.commands[channel], payload)

    def open(self, channel: int, order: dict[str, Any]) -> None:
        """Starts what ``order`` says.

        ``run``: argv, and optionally user, directory, environment, timeout_seconds, and terminal
        ([rows, columns]).  ``put``: path, mode.  ``get``: path.  ``clock``: unix_seconds.
        """
        match order["do"]:
            case "run":
                self.run(channel, order)
            case "put":
                self.uploads[channel] = Upload(order["path"], order["mode"])
            case "get":
                with Path(order["path"]).open("rb", buffering=0) as file:
                    while chunk := file.read(CHUNK_BYTES):
                        self.send(OUTPUT, channel, chunk)
                self.finish(channel, 0)
            case "clock":
                time.clock_settime(time.CLOCK_REALTIME, order["unix_seconds"])
                self.finish(channel, 0)
            case unknown:
                raise ValueError(f"unknown order {unknown!r}; known: run, put, get, clock")

    # -- files ------------------------------------------------------------------------------

    def continue_upload(self, channel: int, payload: bytes) -> None:
        upload = self.uploads[channel]
        try:
            view = memoryview(payload)
            while view:
                view = view[os.write(upload.file, view) :]
            if payload:
                return
            os.fchmod(upload.file, upload.mode)
            Path(upload.partial).rename(upload.path)
        except OSError as error:
            Path(upload.partial).unlink()
            self.finish(channel, 1, error=f"{type(error).__name__}: {error}")
        else:
            self.finish(channel, 0)
        os.close(upload.file)
        del self.uploads[channel]

    # -- commands ---------------------------------------------------------------------------

    def run(self, channel: int, order: dict[str, Any]) -> None:
        master, slave = os.openpty() if "terminal" in order else (None, None)
        if master is not None:
            resize(master, order["terminal"])
        try:
            command = Command(spawn(order, slave), master)
        except BaseException:
            if master is not None:
                os.close(master)
            raise
        finally:
            if slave is not None:
                os.close(slave)
        command.deadline = time.monotonic() + order.get("timeout_seconds", float("inf"))
        self.commands[channel] = command
        self.watch(command.exit_watch, lambda: self.collect(channel))
        for descriptor in command.outputs:
            self.watch(descriptor, self.reader(channel, descriptor))

    def watch(self, descriptor: int, callback: Callable[[], Any]) -> None:
        self.selector.register(descriptor, selectors.EVENT_READ, callback)

    def reader(self, channel: int, descriptor: int) -> Callable[[], Any]:
        return lambda: self.pass_on(channel, descriptor)

    def command_frame(self, kind: int, command: Command, payload: bytes) -> None:
        if kind == INPUT and command.input is not None:
            command.pending += payload
            command.input_ended = command.input_ended or not payload
            self.feed(command, command.input)
        elif kind == SIGNAL:
            kill_group(command.process.pid, json.loads(payload))
        elif kind == RESIZE and command.terminal is not None:
            resize(command.terminal, json.loads(payload))

    def feed(self, command: Command, descriptor: int) -> None:
        """Writes pending input as far as the command takes it; the selector calls for the rest."""
        try:
            while command.pending:
                del command.pending[: os.write(descriptor, command.pending[:CHUNK_BYTES])]
        except BlockingIOError:
            if descriptor not in self.selector.get_map():
                callback = lambda: self.feed(command, descriptor)  # noqa: E731
                self.selector.register(descriptor, selectors.EVENT_WRITE, callback)
            return
        except OSError:  # the command closed its input: what is left is for nobody
            command.pending.clear()
            command.input_ended = True
        self.forget(descriptor)
        if command.input_ended:
            os.close(descriptor)
            command.input = None

    def pass_on(self, channel: int, descriptor: int) -> bool:
        """One chunk of output to the host; False when there is none now."""
        command = self.commands[channel]
        try:
            data = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # the terminal's last user is gone
            data = b""
        if data:
            self.send(command.outputs[descriptor], channel, data)
            return True
        self.forget(descriptor)
        os.close(descriptor)
        del command.outputs[descriptor]
        return False

    def forget(self, descriptor: int) -> None:
        if descriptor in self.selector.get_map():
            self.selector.unregister(descriptor)

    def collect(self, channel: int) -> None:
        """The command's first process has ended: the last of its output, then its status."""
        command = self.commands[channel]
        status = command.process.wait()
        for descriptor in list(command.outputs):
            while self.pass_on(channel, descriptor):
                pass
        still_open = [command.exit_watch, *command.outputs]
        if command.input is not None:
            still_open.append(command.input)
        for descriptor in still_open:
            self.forget(descriptor)
            os.close(descriptor)
        del self.commands[channel]
        self.finish(channel, status, command.timed_out)


def spawn(order: dict[str, Any], terminal: int | None) -> "subprocess.Popen[bytes]":
    """Starts a command in a session of its own, on ``terminal`` or on three pipes."""
    account = pwd.getpwnam(order.get("user", "root"))
    home = account.pw_dir if Path(account.pw_dir).is_dir() else "/"
    end = subprocess.PIPE if terminal is None else terminal
    return subprocess.Popen(
        order["argv"],
        stdin=end,
        stdout=end,
        stderr=end,
        cwd=order.get("directory", home),
        env={**login_environment(account), **order.get("environment", {})},
        start_new_session=True,
        preexec_fn=lambda: become(account, terminal),  # noqa: PLW1509  one thread only
    )


def become(account: pwd.struct_passwd, terminal: int | None) -> None:
    """In the child: gives up what the agent has (memory protection, identity)."""
    Path("/proc/self/oom_score_adj").write_text("0", encoding="ascii")
    if terminal is not None:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    if account.pw_uid != os.getuid():
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)


def login_environment(account: pwd.struct_passwd) -> dict[str, str]:
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell,
    }


def kill_group(process_id: int, number: int) -> None:
    try:
        os.killpg(process_id, number)
    except ProcessLookupError:
        return  # it ended by itself


def resize(terminal: int, size: list[int]) -> None:
    rows, columns = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def main() -> int:
    """Serves the port; the argument is its path, or ``fd:N`` for a descriptor that is open."""
    name = sys.argv[1] if len(sys.argv) > 1 else PORT
    if name.startswith("fd:"):
        Agent(int(name.removeprefix("fd:")), ends=True).serve()
    else:
        while not Path(name).exists():
            time.sleep(RETRY_SECONDS)
        Agent(os.open(name, os.O_RDWR), ends=False).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
