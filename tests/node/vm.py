# SPDX-License-Identifier: Apache-2.0
"""The running node: started, restored, asked, cut off."""

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.node.channel import (
    Argv,
    Channel,
    CommandFailedError,
    NodeError,
    Process,
    Result,
    check_output,
    shell_argv,
    tail,
)
from tests.node.hardware import EMULATION_KERNEL_LINE, PORT_NAME, Hardware, Memory
from tests.node.image import KERNEL_LINE, Image
from tests.node.monitor import Monitor

# Emulated, with other work on a machine of 2 processors, Debian 13 has taken 40 s.
BOOT_SECONDS = 240.0
RESTORE_SECONDS = 60.0
POWER_OFF_SECONDS = 120.0
POLL_SECONDS = 0.1
OUR_UNITS = ("medgemma-*", "gpuwarden-*")


@dataclass(frozen=True)
class Machine:
    """What a node boots from and on; the same for each of its starts."""

    image: Image
    hardware: Hardware
    kvm: bool


class Node:
    """One virtual machine.  Use as a context manager: at the end it is cut off and removed.

    ``memory_folder`` is where the memory of a node that is to be saved lies (see ``save``).
    """

    def __init__(self, machine: Machine, folder: Path, disk: Path):
        self.machine = machine
        self.folder = folder
        self.disk = disk
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._monitor: Monitor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.power_cut()

    # -- power ------------------------------------------------------------------------------

    def power_on(self, memory: Memory | None = None) -> None:
        """Boots from the disk as it is, until systemd has started everything."""
        self._start(memory or Memory())
        try:
            self.monitor.greet()
            self.channel.greet(BOOT_SECONDS)
            self._wait_booted()
        except NodeError as error:
            self._explain(error)
        self.set_clock()

    def restore(self, level: Path, memory: Memory) -> None:
        """Goes on where ``save`` left a node of the same machine, with its memory in ``memory``."""
        with (level / "state").open("rb") as state:
            self._start(memory, "-incoming", "defer")
            try:
                self.monitor.greet()
                self._share_nothing()
                self.monitor.give_descriptor("state", state.fileno())
                self.monitor.command("migrate-incoming", uri="fd:state")
                self._wait_migrated()
                self.monitor.command("cont")
                self.channel.greet(RESTORE_SECONDS)
            except NodeError as error:
                self._explain(error)
        self.set_clock()

    def power_cut(self) -> None:
        """Takes the power away: memory is gone, the disk stays as it is.  Does nothing when off."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self.channel.close()
        self.monitor.close()
        self._process = self._channel = self._monitor = None

    def power_off(self) -> None:
        """Shuts the system down as an operator does, and waits until the machine is off."""
        self.start("systemctl poweroff")
        assert self._process
        try:
            self._process.wait(POWER_OFF_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NodeError(
                f"the node did not shut down in {POWER_OFF_SECONDS} s; console:\n{self.console()}"
            ) from error
        self.power_cut()

    def reboot(self) -> None:
        """Shuts down in order and boots the same disk."""
        self.power_off()
        self.power_on()

    def pause(self) -> None:
        """Stops its processors: until ``resume`` it has no time, and takes none of ours."""
        self.monitor.command("stop")

    def resume(self) -> None:
        """Goes on where ``pause`` stopped it, with the right time."""
        self.monitor.command("cont")
        self.set_clock()

    def save(self, level: Path) -> None:
        """Stops the node and writes ``level/state``; disk and memory file are left as they are.

        The node must have been started with its memory in shared files.  It is off afterwards.
        """
        # The page cache stays: it is what makes the first commands of every test quick.
        self.run("sync")
        self.monitor.command("stop")
        self._share_nothing()
        unlimited = {"max-bandwidth": 1 << 40, "downtime-limit": 100_000}
        self.monitor.command("migrate-set-parameters", **unlimited)
        descriptor = os.open(level / "state", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as state:
            self.monitor.give_descriptor("state", state.fileno())
            self.monitor.command("migrate", uri="fd:state")
            self._wait_migrated()
        self.monitor.command("quit")
        assert self._process
        self._process.wait(RESTORE_SECONDS)
        self.power_cut()

    # -- commands ---------------------------------------------------------------------------

    def run(
        self,
        command: Argv,
        *,
        user: str = "root",
        stdin: bytes = b"",
        timeout_seconds: float = 120.0,
        environment: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Result:
        """Runs a command to its end: a string through bash, a sequence as it is.

        After ``timeout_seconds`` its process group is killed.  Raises ``CommandFailedError`` when
        it fails or runs out of time and ``check`` is set, ``NodeError`` when it can't be started.
        """
        order = run_order(command, user, environment)
        result = self.channel.run(command, order, stdin, timeout_seconds)
        if check and (result.status or result.timed_out):
            raise CommandFailedError(result)
        return result

    def start(
        self,
        command: Argv,
        *,
        user: str = "root",
        environment: Mapping[str, str] | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Process:
        """Starts a command and returns at once; ``terminal`` (rows, columns) gives it a tty."""
        order = run_order(command, user, environment)
        if terminal:
            order["terminal"] = list(terminal)
        return self.channel.open(command, order)

    def wait_until(self, command: Argv, pattern: str, timeout_seconds: float = 120.0) -> Result:
        """Runs ``command`` again and again until its output matches; for states without an event.

        Where there is an event to wait for, ``start`` the command that shows it and
        ``read_until``.  Raises ``NodeError`` with the last output when the time is over.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = max(1.0, deadline - time.monotonic())
            result = self.run(command, check=False, timeout_seconds=left)
            if re.search(pattern, result.text, re.MULTILINE):
                return result
            if time.monotonic() > deadline:
                raise NodeError(
                    f"{command!r} did not show {pattern!r} within {timeout_seconds} s; "
                    f"last: {tail(result.text)} {tail(result.error_text)}"
                )
            time.sleep(POLL_SECONDS)

    def put(self, data: bytes | Path, path: str, mode: int = 0o644) -> None:
        """Writes ``data``, or a copy of the host's file, to ``path``; whole or not at all."""
        content = data.read_bytes() if isinstance(data, Path) else data
        order = {"do": "put", "path": path, "mode": mode}
        self.channel.run(f"put {path}", order, content, RESTORE_SECONDS)

    def get(self, path: str) -> bytes:
        """The content of a file of the node."""
        order = {"do": "get", "path": path}
        return self.channel.run(f"get {path}", order, b"", RESTORE_SECONDS).stdout

    def set_clock(self) -> None:
        """Gives the node the host's time: a restored one still has that of its snapshot."""
        order = {"do": "clock", "unix_seconds": time.time()}
        self.channel.run("clock", order, b"", RESTORE_SECONDS)

    # -- looking ----------------------------------------------------------------------------

    def journal(self, *units: str) -> str:
        """The journal of this boot, of ``units`` (patterns; by default all of gpuwarden's)."""
        chosen = [f"--unit={unit}" for unit in units or OUR_UNITS]
        argv = ["journalctl", "--boot", "--no-pager", "--output=short-precise", *chosen]
        return self.run(argv, check=False).text

    def console(self) -> str:
        """The end of what kernel and systemd printed."""
        with contextlib.suppress(FileNotFoundError):
            return tail((self.folder / "console").read_text(errors="replace"))
        return ""

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor; raises ``NodeError`` when the node is off."""
        if self._monitor is None:
            raise NodeError("the node is off")
        return self._monitor

    @property
    def channel(self) -> Channel:
        """The agent's channel; raises ``NodeError`` when the node is off."""
        if self._channel is None:
            raise NodeError("the node is off")
        return self._channel

    # -- inside -----------------------------------------------------------------------------

    def _start(self, memory: Memory, *arguments: str) -> None:
        """Starts QEMU; its channels are socket pairs: no paths, and the end of it is seen."""
        if self._process is not None:
            raise NodeError("the node is on already")
        ours_agent, its_agent = socket.socketpair()
        ours_monitor, its_monitor = socket.socketpair()
        with its_agent, its_monitor, (self.folder / "qemu.log").open("wb") as log:
            passed = [its_agent.fileno(), its_monitor.fileno()]
            argv = [*self._argv(memory, *passed), *arguments]
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=passed
            )
        self._channel = Channel(ours_agent)
        self._monitor = Monitor(ours_monitor)

    def _argv(self, memory: Memory, agent: int, monitor: int) -> list[str]:
        machine = self.machine
        # Flushes reach the host's page cache, which survives a QEMU that is killed: a power cut
        # loses what the guest did not flush and keeps what it did, without waiting for our disk.
        disk = (
            f"driver=qcow2,node-name=root,discard=unmap,file.driver=file,"
            f"file.filename={self.disk},cache.no-flush=on"
        )
        return [
            # Ends with us, however we end.
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
            *machine.hardware.arguments(machine.kvm, memory),
            *("-kernel", str(machine.image.kernel), "-initrd", str(machine.image.initrd)),
            *("-append", KERNEL_LINE if machine.kvm else f"{KERNEL_LINE} {EMULATION_KERNEL_LINE}"),
            *("-blockdev", disk, "-device", "virtio-blk-pci,drive=root,bus=pcie.0,serial=root"),
            *("-chardev", f"file,id=console,path={self.folder / 'console'},append=on"),
            *("-serial", "chardev:console"),
            *("-chardev", f"socket,id=agent,fd={agent}"),
            *("-device", "virtio-serial-pci,bus=pcie.0"),
            *("-device", f"virtserialport,chardev=agent,name={PORT_NAME}"),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "monitor,mode=control"),
        ]

    def _share_nothing(self) -> None:
        """Memory is in files: the migration stream carries the devices alone."""
        capability = {"capability": "x-ignore-shared", "state": True}
        self.monitor.command("migrate-set-capabilities", capabilities=[capability])

    def _wait_migrated(self) -> None:
        deadline = time.monotonic() + RESTORE_SECONDS
        while (status := self.monitor.command("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise NodeError(f"the snapshot could not be written or read: {status}")
            time.sleep(0.005)

    def _wait_booted(self) -> None:
        argv = ["systemctl", "is-system-running", "--wait"]
        state = self.run(argv, check=False, timeout_seconds=BOOT_SECONDS).text
        if state != "running":
            failed = self.run("systemctl --failed --no-legend; systemctl list-jobs", check=False)
            raise NodeError(f"the node booted into {state!r}: {failed.text}")

    def _explain(self, error: NodeError) -> None:
        """Raises ``error`` again with what QEMU and the guest said."""
        log = tail((self.folder / "qemu.log").read_text(errors="replace"))
        console = self.console()
        self.power_cut()
        raise type(error)(f"{error}\nQEMU: {log}\nconsole: {console}") from error


def run_order(command: Argv, user: str, environment: Mapping[str, str] | None) -> dict[str, Any]:
    """The agent's order for a command."""
    return {
        "do": "run",
        "argv": shell_argv(command),
        "user": user,
        "environment": dict(environment or {}),
    }


def make_overlay(backing: Path, backing_format: str, target: Path) -> None:
    """A disk that begins as ``backing`` and keeps what changes in ``target``."""
    check_output(
        *("qemu-img", "create", "-q", "-f", "qcow2"),
        *("-b", str(backing), "-F", backing_format, str(target)),
    )
