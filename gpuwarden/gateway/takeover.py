# SPDX-License-Identifier: Apache-2.0
"""Receives a big HTTP body straight into a buffer, past the HTTP parser.

For the rest of the connection the transport speaks to ``Receiver`` instead of aiohttp's protocol:
the kernel copies into the memfd, nothing else touches the bytes (32 MiB: 10 ms of CPU, not 28).
Most of it is read by a thread: the loop reads what comes slowly, and the beginning of the rest.
aiohttp still writes the answer and learns of a lost connection, and the connection closes after
the answer, since its parser has not seen the body's end. What a client sends after the body is
dropped.
"""

import asyncio
import socket

from aiohttp.web import BaseRequest

from gpuwarden.gateway.hands import read_on
from gpuwarden.gateway.lanes import Lanes

RECEIVE_STEP_BYTES = 1 << 20  # copied per turn of the event loop: 0.1 to 0.2 ms
SCRAP_BYTES = 4096
CARRIED_BYTES = 4 << 20  # still to come: for less, the way to a thread takes as long


class Receiver(asyncio.BufferedProtocol):
    """Fills ``target`` from the transport and hands everything else on to ``http``."""

    def __init__(
        self,
        http: asyncio.Protocol,
        target: memoryview,
        transport: asyncio.Transport,
        lanes: Lanes,
    ) -> None:
        self._http = http
        self._rest = target
        self._lanes = lanes
        self._sender = lanes.enter(transport)
        self._carrying: asyncio.Task[None] | None = None
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        """Where the next bytes go."""
        return self._rest[:RECEIVE_STEP_BYTES] if self._rest else bytearray(SCRAP_BYTES)

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` more have arrived."""
        if not self._rest:
            return
        self._rest = self._rest[nbytes:]
        if not self._rest:
            self._settle(None)
            return
        self._lanes.heard(self._sender, nbytes)
        if self._carrying is None and len(self._rest) >= CARRIED_BYTES:
            self._have_it_carried()

    def eof_received(self) -> bool | None:
        """The client sends no more: to aiohttp that is a lost connection, which follows."""
        return self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._settle(exc or ConnectionResetError("the client closed the connection"))
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        """The answer outruns the client."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._http.resume_writing()

    async def stop(self) -> None:
        """Write no more into the target: it may belong to someone else from now on."""
        self._rest = memoryview(b"")
        self._settle(ConnectionResetError("no longer wanted"))
        cancelled = False
        while self._carrying is not None:  # no longer than hands.PATIENCE_MILLISECONDS
            try:
                await asyncio.wait({self._carrying})
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    def _have_it_carried(self) -> None:
        connection = self._sender.transport.get_extra_info("socket")
        if connection is None or not self._lanes.pick_up(self._sender):
            return
        try:
            # Its own: whatever becomes of the transport, that number is nobody else's meanwhile.
            own = connection.dup()
        except OSError:  # no descriptor is left: it goes on as it began
            self._lanes.put_down(self._sender)
            return
        carrying = self._carry(own, self._rest)
        self._carrying = asyncio.get_running_loop().create_task(carrying)

    async def _carry(self, connection: socket.socket, target: memoryview) -> None:
        loop, count = asyncio.get_running_loop(), 0
        try:
            count = await loop.run_in_executor(
                self._lanes.hands, read_on, connection, target, lambda: bool(self._rest)
            )
        finally:
            self._carrying = None
            self._lanes.put_down(self._sender)
        self.buffer_updated(count)

    def _settle(self, error: Exception | None) -> None:
        self._lanes.leave(self._sender)
        if self.complete.done():
            return
        if error is None:
            self.complete.set_result(None)
        else:
            self.complete.set_exception(error)
            self.complete.exception()  # seen: the waiter may be gone already


def can_take_over(request: BaseRequest) -> bool:
    """Whether this aiohttp leaves us what a take-over needs (private names, pinned by a test)."""
    return (
        hasattr(request.transport, "set_protocol")
        and hasattr(request.protocol, "_reading_paused")
        and hasattr(request.content, "read_nowait")
    )


def was_taken_over(request: BaseRequest) -> bool:
    """Whether the connection can't serve another request."""
    transport = request.transport
    return transport is not None and isinstance(transport.get_protocol(), Receiver)


async def receive(request: BaseRequest, target: memoryview, lanes: Lanes) -> None:
    """Fill ``target`` with the request's body. Raises ConnectionResetError if the client leaves.

    :param lanes: where it waits for others who began before it.
    """
    filled = drain(request, target)
    if filled == len(target):
        return
    transport, protocol = request.transport, request.protocol
    if transport is None or protocol._reading_paused:
        raise ConnectionResetError("the client closed the connection")
    receiver = Receiver(protocol, target[filled:], transport, lanes)
    transport.set_protocol(receiver)
    try:
        await receiver.complete
    finally:
        request.content.feed_eof()  # no lingering read for a body that never passes the parser
        await receiver.stop()


def drain(request: BaseRequest, target: memoryview) -> int:
    """Move what the parser has already seen of the body into ``target``; returns how much."""
    filled = 0
    while chunk := request.content.read_nowait():
        target[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    return filled
