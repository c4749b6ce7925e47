# SPDX-License-Identifier: Apache-2.0
"""The attach socket: what a CUDA context is on a real card, a connection is on a simulated one.

A context lives as long as the connection's last descriptor, whoever holds it, and counts under
the process that connected. The end of the stream tells the client that its context is gone.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable

from gpuwarden.simulator.machine import Context, Machine, RefusedError
from gpuwarden.simulator.messages import ATTACH, CHANGE, MessageError, parse

log = logging.getLogger(__name__)

LINE_LIMIT_BYTES = 4096
FIRST_LINE_SECONDS = 10.0


class AttachServer:
    """Serves contexts on the cards."""

    def __init__(self, machines: list[Machine], changed: Callable[[], None]) -> None:
        self._machines = {machine.uuid: machine for machine in machines}
        self._changed = changed
        self._open: dict[Context, tuple[Machine, asyncio.StreamWriter]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its first line to its end."""
        pid, _ = peer_of(writer)
        context: Context | None = None
        try:
            line = await asyncio.wait_for(reader.readline(), FIRST_LINE_SECONDS)
            context = await self._attach(pid, line, writer)
            while context in self._open and (line := await reader.readline()):
                await self._change(context, line, writer)
        except (OSError, ValueError, TimeoutError) as error:
            # A client that goes away, says nothing, or sends an endless line: its context ends.
            log.info("context of process %d ended: %s", pid, error)
        finally:
            if context in self._open:
                machine, _ = self._open.pop(context)
                machine.detach(context)
                self._changed()
            writer.close()

    def drop_lost(self) -> None:
        """Hang up on clients whose context went with its card."""
        for context, (machine, writer) in self._open.items():
            if context not in machine.contexts:
                writer.close()

    def close(self) -> None:
        """Hang up on everybody: with the driver all contexts are gone, there is nothing to undo."""
        for _, writer in self._open.values():
            writer.close()
        self._open.clear()

    async def _attach(self, pid: int, line: bytes, writer: asyncio.StreamWriter) -> Context | None:
        try:
            request = parse(ATTACH, line)
            machine = self._machines.get(request.uuid)
            if machine is None:
                raise RefusedError(f"uuid: no card {request.uuid!r} here")
            context = machine.attach(pid, request.vram_bytes, request.load, request.kind)
        except (MessageError, RefusedError) as error:
            await answer(writer, str(error))
            return None
        self._open[context] = (machine, writer)
        self._changed()
        await answer(writer, None)
        return context

    async def _change(self, context: Context, line: bytes, writer: asyncio.StreamWriter) -> None:
        machine, _ = self._open[context]
        try:
            request = parse(CHANGE, line)
            machine.change(context, request.vram_bytes, request.load)
        except (MessageError, RefusedError) as error:
            await answer(writer, str(error))
            return
        self._changed()
        await answer(writer, None)


async def answer(writer: asyncio.StreamWriter, error: str | None) -> None:
    """One line: done, or why not."""
    reply = {"ok": True} if error is None else {"ok": False, "error": error}
    writer.write(json.dumps(reply).encode() + b"\n")
    await writer.drain()


def peer_of(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Process and user at the other end, as the kernel noted them at connect."""
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid
