# SPDX-License-Identifier: Apache-2.0
"""polkit for tests: the real one with our actions and rules of the test, or one that is slow."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError
from gpuwarden.bus.polkit import INTERFACE, NAME, PATH
from tests.integration.private_bus import REPOSITORY, PrivateBus

BUS_POLICY = Path("/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf")
DAEMON = "/usr/lib/polkit-1/polkitd"
ACTIONS = REPOSITORY / "packaging/polkit"
START_SECONDS = 30.0
RULES_FOLDERS = ("/etc/polkit-1/rules.d", "/usr/share/polkit-1/rules.d")
ACTIONS_FOLDER = "/usr/share/polkit-1/actions"


def polkit_bus_policy() -> str:
    """Polkit's own policy for the system bus."""
    return BUS_POLICY.read_text(encoding="utf-8")


@asynccontextmanager
async def polkit(bus: PrivateBus, rules: str = "", actions: Path = ACTIONS) -> AsyncIterator[None]:
    """The real polkitd on ``bus``: our shipped actions or those below ``actions``; these rules.

    In a mount namespace of its own: it reads fixed folders.
    """
    known, rule_folder, empty = (bus.folder / name for name in ("actions", "rules", "none"))
    shutil.copytree(actions, known)
    rule_folder.mkdir()
    empty.mkdir()
    (rule_folder / "50-test.rules").write_text(rules, encoding="utf-8")
    mounts = {ACTIONS_FOLDER: known, RULES_FOLDERS[0]: rule_folder, RULES_FOLDERS[1]: empty}
    steps = [f"mount --bind {source} {target}" for target, source in mounts.items()]
    script = " && ".join([*steps, f"exec {DAEMON} --no-debug"])
    process = await asyncio.create_subprocess_exec(
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
    )
    try:
        await _answers(bus)
        yield
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def slow_polkit(bus: PrivateBus) -> AsyncIterator[asyncio.StreamReader]:
    """One that never answers; gives the lines in which it tells what it was asked."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.slow_polkit",
        bus.address,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            assert await process.stdout.readline() == b"ready\n"
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def _answers(bus: PrivateBus) -> None:
    """Wait until somebody answers as polkit."""
    connection = Bus(bus.address)
    await connection.connect()
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    await connection.call(NAME, PATH, INTERFACE, "EnumerateActions", "s", [""])
                except BusError:
                    await asyncio.sleep(0.05)  # it has no way to tell whoever started it
                else:
                    return
    finally:
        await connection.close()
