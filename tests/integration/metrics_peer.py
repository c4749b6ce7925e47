# SPDX-License-Identifier: Apache-2.0
"""The metrics service as the process that it is on a node, its socket held as systemd holds it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = """\
import sys
from pathlib import Path
from gpuwarden.metrics import http, service, sources
folder = Path(sys.argv[1])
service.IDLE_SECONDS = float(sys.argv[2])
service.LOOK_SECONDS = 0.05
http.CONNECTION_SECONDS = float(sys.argv[3])
http.CLOSING_SECONDS = 1.0
places = sources.Places(
    folder / "plan.json", folder / "guard.json", folder / "gateway.json",
    lambda index: folder / f"thermal-{index}.json", lambda index: folder / f"scan-{index}.json",
)
sys.exit(service.main([], places))
"""
# Descriptor 3 is the socket, and the environment says so of this very process.
HAND_OVER = 'exec 3<&"$0"; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=metrics; exec "$@"'


class Metrics:
    """A listening socket, and processes that serve it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port: int = self.listener.getsockname()[1]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, idle_seconds: float = 60.0, connection_seconds: float = 10.0) -> None:
        number = self.listener.fileno()
        self.process = await asyncio.create_subprocess_exec(
            *("bash", "-c", HAND_OVER, str(number), sys.executable, "-c", RUN),
            *(str(self.folder), str(idle_seconds), str(connection_seconds)),
            pass_fds=(number,),
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), 20)

    async def stop(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        assert await self.ended() == 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> tuple[str, bytes]:
        """The status line and the body."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.partition(b"\r\n")[0].decode(), body

    async def scrape(self) -> tuple[str, bytes]:
        return await self.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")


@contextlib.asynccontextmanager
async def metrics_of(folder: Path, **seconds: float) -> AsyncIterator[Metrics]:
    """The service over the states that are in a folder."""
    metrics = Metrics(folder)
    await metrics.start(**seconds)
    try:
        yield metrics
    finally:
        await metrics.stop()
        metrics.listener.close()
