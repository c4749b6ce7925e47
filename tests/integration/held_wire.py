# SPDX-License-Identifier: Apache-2.0
"""The wire between a service and its bus, that can hold back a flood and let it through as one.

It runs in the service's own loop: what the service does before it comes to the end of the flood is
then the service's doing alone. Through the bus's socket, a few hundred messages deep, it would
depend on how often the bus is given a processor. Imports none of ours (see probe.py).
"""

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# In the service's environment: the bus's name of the client whose call ends what is held back.
HELD_FOR = "GPUWARDEN_TEST_HELD_FOR"
HOLD = signal.SIGUSR1
HELD = b"held\n"

_SENDER, _DESTINATION = b"\x07\x01s\x00", b"\x06\x01s\x00"  # a field's code, and that it is text
_CHUNK_BYTES = 256 * 1024
_PIPE_BYTES = 4 * 1024 * 1024


@asynccontextmanager
async def held_wire(address: str) -> AsyncIterator[str]:
    """The address to use instead of ``address``: the same where nothing is to be held back."""
    if HELD_FOR not in os.environ:
        yield address
        return
    wire = _Wire(address.removeprefix("unix:path="), os.environ[HELD_FOR])
    path = f"{wire.path}-held-{os.getpid()}"  # in the bus's folder, which goes with it
    async with await asyncio.start_unix_server(wire.carry, path):
        yield f"unix:path={path}"


class _Wire:
    """On HOLD it says ``held``, and the CPU seconds from the release to the answer when it came."""

    def __init__(self, path: str, client: str) -> None:
        self.path = path
        name = struct.pack("<I", len(client)) + client.encode() + b"\0"
        self._from, self._to = _SENDER + name, _DESTINATION + name
        self._holding = False
        self._held = bytearray()
        self._released_at = 0.0
        self._carrying: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bus_reader, bus_writer = await asyncio.open_unix_connection(self.path, limit=_CHUNK_BYTES)
        # As deep as the system lets it be: the more a service finds, the longer it can stall.
        pipe: socket.socket = writer.get_extra_info("socket")
        pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
        asyncio.get_running_loop().add_signal_handler(HOLD, self._hold)
        up = asyncio.create_task(self._up(reader, bus_writer))
        self._carrying.add(up)
        await self._down(bus_reader, writer)

    def _hold(self) -> None:
        self._holding = True
        print(HELD.decode(), end="", flush=True)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if not self._holding:
                writer.write(data)
                continue
            seen = max(0, len(self._held) - len(self._from))
            self._held += data
            if self._held.find(self._from, seen) >= 0:
                self._holding = False
                self._released_at = time.thread_time()
                writer.write(self._held)
        writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self._released_at and self._to in data:
                print(time.thread_time() - self._released_at, flush=True)
                self._released_at = 0.0
            writer.write(data)
        writer.close()
