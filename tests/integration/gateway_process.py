# SPDX-License-Identifier: Apache-2.0
"""The front door as the process that it is on a node, for tests."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.integration.gateway_node import DEADLINE_SECONDS, read_reply

ROOT = Path(__file__).parents[2]
RUN = "import sys; from gpuwarden.gateway.service import main; sys.exit(main(sys.argv[1:]))"


async def ready(
    folder: Path,
    *arguments: str,
    pass_fds: tuple[int, ...] = (),
    environment: dict[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """A front door process that has told a notify socket that it is ready."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(folder / "notify.sock"))
    notify.setblocking(False)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        *arguments,
        pass_fds=pass_fds,
        stderr=(folder / "log").open("wb"),
        cwd=ROOT,
        env={
            "PYTHONPATH": str(ROOT),
            "NOTIFY_SOCKET": str(folder / "notify.sock"),
            **(environment or {}),
        },
    )
    async with asyncio.timeout(20):
        while await asyncio.get_running_loop().sock_recv(notify, 4096) != b"READY=1":
            assert process.returncode is None, (folder / "log").read_text()
    notify.close()
    return process


async def predict(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
    reply = await read_reply(reader)
    writer.close()
    return reply.status


@contextlib.asynccontextmanager
async def ready_by_hand(folder: Path, port: int, *arguments: str) -> AsyncIterator[Path]:
    """A front door without systemd; where it publishes its state."""
    state = folder / "state.json"
    places = ("--dispatch", str(folder / "dispatch.sock"), "--state", str(state))
    process = await ready(folder, RUN, "--http", f"127.0.0.1:{port}", *places, *arguments)
    try:
        yield state
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
