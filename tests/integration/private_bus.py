# SPDX-License-Identifier: Apache-2.0
"""A real dbus-daemon of the system type for tests, with our shipped policy.

Clients of other users run through setpriv: the daemon takes a client's user and groups from the
kernel (SO_PEERCRED, SO_PEERGROUPS), so that no account has to be made.
"""

import asyncio
import grp
import os
import pwd
import shutil
import signal
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
POLICY_FILE = REPOSITORY / "packaging/dbus/org.gpuwarden1.conf"
SYSTEM_CONFIGURATION = Path("/usr/share/dbus-1/system.conf")
POLICY_GROUP = "gpuwarden"
START_SECONDS = 30.0
CLIENT_SECONDS = 30.0

NOBODY = pwd.getpwnam("nobody")


def policy_group() -> str:
    """The group that the policy names in a test: ours if this machine has it, else a stand-in."""
    if any(group.gr_name == POLICY_GROUP for group in grp.getgrall()):
        return POLICY_GROUP
    return "games"


def shipped_policy() -> str:
    """The shipped file, its group replaced by one that this machine has."""
    text = POLICY_FILE.read_text(encoding="utf-8")
    line = f'<policy group="{POLICY_GROUP}">'
    assert text.count(line) == 1, "the shipped policy names its group once"
    return text.replace(line, f'<policy group="{policy_group()}">')


@dataclass(frozen=True)
class User:
    """Whom a client runs as."""

    label: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def command(self, arguments: Sequence[str]) -> list[str]:
        groups = ["--groups", ",".join(map(str, self.groups))] if self.groups else []
        return [
            "setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.gid}",
            *(groups or ["--clear-groups"]),
            *arguments,
        ]


ROOT = User("root", 0, 0)
OTHER = User("other", NOBODY.pw_uid, NOBODY.pw_gid)
MEMBER = User("group", NOBODY.pw_uid, NOBODY.pw_gid, (grp.getgrnam(policy_group()).gr_gid,))


class PrivateBus:
    """One dbus-daemon; start, kill and start again at the same address.

    :param policies: policy files in force beside the system bus's own defaults.
    """

    def __init__(self, folder: Path, policies: Sequence[str] = ()) -> None:
        self.folder = folder
        self.socket = folder / "bus"
        self.address = f"unix:path={self.socket}"
        self._configuration = folder / "bus.conf"
        self._policies = list(policies)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Run the daemon; returns when it listens."""
        self.socket.unlink(missing_ok=True)
        self._configuration.write_text(self._configured(), encoding="utf-8")
        self._process = await asyncio.create_subprocess_exec(
            "dbus-daemon",
            f"--config-file={self._configuration}",
            "--nofork",
            "--nopidfile",
            "--print-address=1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self._process.stdout.readline()
        assert line.startswith(b"unix:"), "dbus-daemon did not start"
        self.socket.chmod(0o666)

    async def reload(self, policies: Sequence[str]) -> None:
        """Put other policies in force, as after the install of a package."""
        self._policies = list(policies)
        self._configuration.write_text(self._configured(), encoding="utf-8")
        daemon = "org.freedesktop.DBus"
        status, output = await self.busctl(
            ROOT, "call", daemon, "/org/freedesktop/DBus", daemon, "ReloadConfig"
        )
        assert status == 0, output

    async def stop(self, number: int = signal.SIGKILL) -> None:
        """End the daemon, as a crash by default."""
        if self._process is not None:
            self._process.send_signal(number)
            await self._process.wait()
            self._process = None

    async def run(self, user: User, *arguments: str) -> tuple[int, str]:
        """Run a program as ``user``; its exit status and output with errors."""
        process = await asyncio.create_subprocess_exec(
            *user.command(arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
        )
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                output, _ = await process.communicate()
        except BaseException:
            process.kill()
            raise
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def busctl(self, user: User, *arguments: str) -> tuple[int, str]:
        """Run busctl on this bus as ``user``."""
        return await self.run(user, "busctl", f"--address={self.address}", *arguments)

    def _configured(self) -> str:
        """The distribution's own system bus policy, with our address and policies."""
        tree = ET.parse(SYSTEM_CONFIGURATION)
        root = ET.Element("busconfig")
        ET.SubElement(root, "type").text = "system"
        ET.SubElement(root, "listen").text = self.address
        ET.SubElement(root, "auth").text = "EXTERNAL"
        root.extend(tree.getroot().findall("policy"))
        for number, policy in enumerate(self._policies):
            path = self.folder / f"policy{number}.conf"
            path.write_text(policy, encoding="utf-8")
            ET.SubElement(root, "include").text = str(path)
        doctype = (
            '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
            ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
        )
        return doctype + ET.tostring(root, encoding="unicode")


@asynccontextmanager
async def private_bus(policies: Sequence[str] | None = None) -> AsyncIterator[PrivateBus]:
    """A running bus with the shipped policy (or ``policies``), gone afterwards."""
    folder = _open_folder()
    bus = PrivateBus(folder, [shipped_policy()] if policies is None else policies)
    try:
        await bus.start()
        yield bus
    finally:
        await bus.stop()
        shutil.rmtree(folder)


def _open_folder() -> Path:
    """Not pytest's own folder, which other users can't enter."""
    folder = Path(tempfile.mkdtemp(prefix="gpuwarden-bus-"))
    folder.chmod(0o755)
    return folder


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
