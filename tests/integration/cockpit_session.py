# SPDX-License-Identifier: Apache-2.0
"""A real Cockpit over a private bus: its web server, its bridge, its cockpit.js, our page.

Without its login, which the tests of the whole node see: the session is that of who runs the tests.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gpuwarden.names import GATEWAY_LOCAL_SOCKET
from tests.integration.private_bus import REPOSITORY, ROOT, PrivateBus, User

WEB_SERVER = "/usr/lib/cockpit/cockpit-ws"
PAGE_FOLDER = REPOSITORY / "packaging" / "cockpit"
START_SECONDS = 20.0


def local_door(bus: PrivateBus) -> Path:
    """Where the session's page looks for the front door."""
    return bus.folder / "http.sock"


@asynccontextmanager
async def cockpit_session(
    bus: PrivateBus, programs: Mapping[str, str], user: User = ROOT
) -> AsyncIterator[str]:
    """The page's address.

    :param programs: shell scripts by the name of the program for which they stand in the session.
    :param user: whose session it is.
    """
    # Where the bus is everybody may enter.
    data, stand_ins = bus.folder / "data", bus.folder / "bin"
    page = data / "cockpit" / "gpuwarden"
    shutil.copytree(PAGE_FOLDER, page)
    asks = page / "frontdoor.js"
    text = asks.read_text(encoding="utf-8")
    assert f'"{GATEWAY_LOCAL_SOCKET}"' in text
    asks.write_text(text.replace(str(GATEWAY_LOCAL_SOCKET), str(local_door(bus))), "utf-8")
    stand_ins.mkdir()
    for name, script in programs.items():
        (stand_ins / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (stand_ins / name).chmod(0o755)
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        *user.command(
            [
                WEB_SERVER,
                "--local-session=cockpit-bridge",
                "--address=127.0.0.1",
                f"--port={port}",
            ]
        ),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
            "HOME": "/nonexistent",
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "XDG_DATA_HOME": str(data),
        },
    )
    try:
        await _listening(process, port)
        yield f"http://127.0.0.1:{port}/cockpit/@localhost/gpuwarden/index.html"
    finally:
        process.terminate()
        await process.wait()


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, "cockpit-ws did not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
        return port
