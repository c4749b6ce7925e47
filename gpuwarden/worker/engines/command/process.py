# SPDX-License-Identifier: Apache-2.0
"""The server's process: started in the worker's own control group, heard, and ended.

systemd ends what is in the unit's control group whatever happens. Beside that the kernel ends the
server when the worker dies, so that nothing is left where no unit is around it.
"""

import asyncio
import logging
import os
import signal
import sys
from collections import deque
from typing import Callable, Deque, List, Mapping

from gpuwarden.worker.waiting import within

_log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
LINE_LIMIT_CHARACTERS = 2000
LAST_LINES = 5
GRACE_SECONDS = 3.0  # from SIGTERM to SIGKILL; systemd gives a worker 5 s for its children
# The parent is known by its number: it may have ended before the kernel was asked.
_BOOTSTRAP = (
    "import ctypes, os, signal, sys; "
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


class ServerProcess:
    """A server that runs, with its output.

    :ivar quiet: what it says is read and forgotten: it may be a patient's.
    """

    def __init__(self, process: asyncio.subprocess.Process, output: int) -> None:
        self._process = process
        self._lines: Deque[str] = deque(maxlen=LAST_LINES)
        self._reading = asyncio.ensure_future(self._read(output))
        self.quiet = False

    @classmethod
    async def start(cls, command: List[str], environment: Mapping[str, str]) -> "ServerProcess":
        """Start it. Raises OSError if no process can be started."""
        inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        # A pipe of ours: asyncio, given one, takes a process for alive while a child holds it open.
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", _BOOTSTRAP, str(os.getpid())),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
                env={**inherited, **environment},
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._process.returncode is not None

    @property
    def end_text(self) -> str:
        """How it ended, and the last that it said while that was nobody's secret."""
        status = self._process.returncode or 0
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        last = "" if self.quiet or not self._lines else f": {self._lines[-1]}"
        return f"its server (PID {self.pid}) {how}{last}"

    async def ended(self) -> None:
        """Wait until it is gone, and what it said has been read."""
        await self._process.wait()
        # A child of its own may hold the pipe open.
        await asyncio.wait([self._reading], timeout=0.2)

    async def end(self) -> None:
        """End it: SIGTERM, and after a while SIGKILL to all of its session.

        What it leaves behind after an end of its own is its control group's to end: only as long as
        it is there its number is certainly its own.
        """
        try:
            self._signal(os.kill, signal.SIGTERM)
            await within(GRACE_SECONDS, self._process.wait())
        except asyncio.TimeoutError:
            _log.warning("its server did not end within %g s: it is killed", GRACE_SECONDS)
            self._signal(os.killpg, signal.SIGKILL)
            await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        if self.has_ended:
            return
        try:
            send(self.pid, number)
        except ProcessLookupError:
            return  # it has ended by itself meanwhile

    async def _read(self, output: int) -> None:
        """Read what it says for as long as it says anything: a full pipe would stop it."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(output, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, pipe)
        try:
            await self._read_all(reader)
        finally:
            transport.close()

    async def _read_all(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await reader.read(READ_BYTES):
            if self.quiet:
                rest = b""
                continue
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                self._hear(line)
            if len(rest) > READ_BYTES:
                rest = b""
        self._hear(rest)

    def _hear(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()[:LINE_LIMIT_CHARACTERS]
        if text and not self.quiet:
            self._lines.append(text)
            _log.info("server: %s", text)
