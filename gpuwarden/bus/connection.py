# SPDX-License-Identifier: Apache-2.0
"""One connection to the bus: dbus-next's message bus with its defects cured.

Single use, as in dbus-next: when it is lost, the supervisor makes another.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

from gpuwarden.bus.errors import (
    BusError,
    CallTimeout,
    Disconnected,
    InvalidArgs,
    LimitsExceeded,
    error_from,
)
from gpuwarden.bus.framing import FairQueue, Frame, FrameReader, FramingError
from gpuwarden.bus.library import (
    Authenticator,
    AuthError,
    AuthExternal,
    BusType,
    Message,
    MessageBus,
    MessageType,
)
from gpuwarden.bus.serving import CallServer
from gpuwarden.bus.wire import clean_body, parse_body, parse_header

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
DEFAULT_CALL_SECONDS = 25.0  # sd-bus's and libdbus's default
CLOSE_SECONDS = 2.0
MAX_AUTH_LINE_BYTES = 16 * 1024

# A turn of the loop reads what is there for at most 4 ms and parses at most 32 messages or 2 ms,
# then lets others run. More reading than parsing: a call that stands behind another client's flood
# in the socket comes to its turn only when the flood has been read (3 microseconds a message, as
# against 70 to parse one and 150 to answer it).
READ_BYTES = 256 * 1024
READ_SECONDS = 0.004
MESSAGES_PER_TURN = 32
TURN_SECONDS = 0.002
# Beyond this much unparsed input the daemon keeps the rest until we caught up.
MAX_WAITING_BYTES = 8 * 1024 * 1024
# Beyond this many unsent messages the bus daemon is not reading: better to connect anew.
MAX_UNSENT = 4096

_DAEMON = "org.freedesktop.DBus"
_DAEMON_PATH = "/org/freedesktop/DBus"

# What dbus-next raises at a message that it can't parse.
_PARSE_ERRORS = (ValueError, TypeError, LookupError, EOFError, struct.error, RecursionError)

SignalHandler = Callable[[Message], None]


class HardenedMessageBus(MessageBus):
    """A connection that no permitted peer can stall, grow, crash or read the source of.

    :param address: of the bus; None for the system bus.
    :param server: answers calls to us.
    :param on_signal: gets each signal.
    :raises OSError: nobody listens at the address.
    """

    def __init__(self, address: str | None, server: CallServer, on_signal: SignalHandler) -> None:
        # File descriptors are never negotiated: received ones would have to be closed by hand.
        super().__init__(address or "", BusType.SYSTEM, negotiate_unix_fd=False)
        self._server = server
        self._on_signal = on_signal
        self._frames = FrameReader()
        self._waiting = FairQueue()
        self._turn_scheduled = False
        self._reading = False
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self.closed: asyncio.Future[str] = self._loop.create_future()

    async def open(self) -> None:
        """Authenticate and say hello. Raises Disconnected, and is closed then."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._authenticate()
                hello = _daemon_call("Hello")
                hello.serial = self.next_serial()
                answer = self._expect(hello.serial)
                await self._loop.sock_sendall(self._sock, hello._marshall())
                self._read_on()
                self.unique_name = _checked(await answer).body[0]
        except TimeoutError:
            self._lose("the bus did not answer")
            raise Disconnected(f"the bus did not answer in {CONNECT_SECONDS:g} s") from None
        except (OSError, EOFError, AuthError, ValueError, BusError) as error:
            self._lose(str(error))
            raise Disconnected(f"the bus refused us: {error}") from error
        except BaseException:
            self._lose("cancelled")
            raise

    async def call_method(
        self, message: Message, timeout_seconds: float = DEFAULT_CALL_SECONDS
    ) -> Message:
        """Send a call and give its answer.

        :raises BusError: the peer's error, CallTimeout, or Disconnected.
        """
        if not self.connected:
            raise Disconnected("not connected to the bus")
        message.serial = self.next_serial()
        answer = self._expect(message.serial)
        try:
            self.send(message)
            async with asyncio.timeout(timeout_seconds):
                return _checked(await answer)
        except TimeoutError:
            raise CallTimeout(
                f"{message.destination} did not answer {message.member} in {timeout_seconds:g} s"
            ) from None
        finally:
            self._answers.pop(message.serial, None)

    def send(self, message: Message) -> None:
        """Send ``message``; dropped if the connection is gone.

        Texts are cleaned first: the daemon disconnects whoever sends a NUL.
        """
        if self._disconnected:
            return
        if self._writer.messages.qsize() >= MAX_UNSENT:
            self._lose("the bus daemon stopped reading")
            return
        message.serial = message.serial or self.next_serial()
        message.body = clean_body(message.body)
        self._writer.schedule_write(message)

    async def close(self) -> None:
        """Send what is left to send, and close."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._flush()
        except (OSError, TimeoutError, BusError) as error:
            logger.warning("closing the bus connection with answers unsent: %s", error)
        self._lose("closed by us")

    async def _flush(self) -> None:
        """Wait until the daemon has read all that we sent: it answers in order."""
        if self.connected:
            await self.call_method(_daemon_call("GetId"))

    # Connecting: stock blocks in connect(), leaks the socket when refused, and spins for ever at
    # an end of file during authentication.

    def _setup_socket(self) -> None:
        problems = []
        for transport, options in self._bus_address:
            name = options.get("path") or ("abstract" in options and f"\0{options['abstract']}")
            if transport != "unix" or not name:
                problems.append(f"{transport}: only unix:path= and unix:abstract= are supported")
                continue
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                self._sock.connect(name)
            except OSError as error:
                self._sock.close()
                problems.append(f"{name}: {error.strerror}")
                continue
            self._fd = self._sock.fileno()
            return
        raise ConnectionError("; ".join(problems))

    def _create_unmarshaller(self) -> None:
        """Stock keeps one parser over the socket; ours parse single frames."""

    async def _authenticate(self) -> None:
        await self._loop.sock_sendall(self._sock, b"\0")
        authenticator = AuthExternal()
        line = authenticator._authentication_start(negotiate_unix_fd=False)
        while True:
            await self._loop.sock_sendall(self._sock, Authenticator._format_line(line))
            if line == "BEGIN":
                return
            line = authenticator._receive_line(await self._auth_readline())

    async def _auth_readline(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            # One byte at a time: what follows the line belongs to the messages.
            byte = await self._loop.sock_recv(self._sock, 1)
            line += byte
            if not byte:
                raise EOFError("the bus hung up during authentication")
            if len(line) > MAX_AUTH_LINE_BYTES:
                raise AuthError("the bus sends an endless line")
        return line[:-2].decode("ascii", "replace")

    # Reading: bytes to frames at once, frames to messages a few each turn.

    def _read_on(self) -> None:
        if not self._reading and not self._disconnected:
            self._loop.add_reader(self._fd, self._message_reader)
            self._reading = True

    def _message_reader(self) -> None:
        end = self._loop.time() + READ_SECONDS
        try:
            while self._reading and self._loop.time() < end:
                self._receive()
        except BlockingIOError:
            pass  # all is read
        except (OSError, EOFError, FramingError) as error:
            self._lose(str(error))
        self._schedule_turn()

    def _receive(self) -> None:
        """Read once. Raises BlockingIOError if there is nothing, EOFError at the end."""
        data = self._sock.recv(READ_BYTES)
        if not data:
            raise EOFError("the bus daemon hung up")
        for frame in self._frames.feed(data):
            if not self._waiting.put(frame) and frame.wants_reply:
                self._refuse(frame)
        if self._waiting.waiting_bytes > MAX_WAITING_BYTES:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def _schedule_turn(self) -> None:
        if self._waiting and not self._turn_scheduled and not self._disconnected:
            self._turn_scheduled = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_scheduled = False
        end = self._loop.time() + TURN_SECONDS
        for _ in range(min(MESSAGES_PER_TURN, len(self._waiting))):
            self._process(self._waiting.take())
            if self._disconnected or self._loop.time() > end:
                break
        if self._waiting.waiting_bytes <= MAX_WAITING_BYTES:
            self._read_on()
        self._schedule_turn()

    def _process(self, frame: Frame) -> None:
        try:
            message = parse_header(frame)
        except _PARSE_ERRORS as error:
            # Costs its sender the answer, never us the connection.
            logger.warning("a message of %s can't be read: %s", frame.sender or "the bus", error)
            return
        if message.message_type is MessageType.METHOD_CALL:
            self._server.serve(message, frame, self)
            return
        try:
            if frame.oversized:
                raise LimitsExceeded(f"what {message.sender} sent is too large")
            message.body = parse_body(frame, message)
        except (*_PARSE_ERRORS, LimitsExceeded) as error:
            logger.warning("%s sent what can't be read: %s", message.sender, error)
            unread = InvalidArgs(f"the answer can't be read: {error}")
            self._answer_with(message, error if isinstance(error, BusError) else unread)
            return
        if message.message_type is MessageType.SIGNAL:
            self._on_signal(message)
        else:
            self._answer_with(message, None)

    def _answer_with(self, message: Message, fault: BusError | None) -> None:
        future = self._answers.pop(message.reply_serial or 0, None)
        if future is None or future.done():
            return  # its caller gave up; or the message is a signal, which nobody waits for
        if fault is None:
            future.set_result(message)
        else:
            future.set_exception(fault)

    def _refuse(self, frame: Frame) -> None:
        """Answer a call over its sender's share; the daemon's own limit makes this rare."""
        try:
            call = parse_header(frame)
        except _PARSE_ERRORS as error:
            logger.warning("a message of %s can't be read: %s", frame.sender, error)
            return
        refusal = LimitsExceeded("too many of your calls are waiting")
        self.send(Message.new_error(call, refusal.name, refusal.text))

    def _expect(self, serial: int) -> asyncio.Future[Message]:
        future: asyncio.Future[Message] = self._loop.create_future()
        self._answers[serial] = future
        return future

    # Ending.

    def _finalize(self, err: BaseException | None = None) -> None:
        """What the library's writer calls when it can't write."""
        self._lose(str(err or "closed"))

    def _lose(self, reason: str) -> None:
        """Close, fail what waits for an answer, and tell the supervisor; once."""
        if self._disconnected:
            return
        self._disconnected = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(Disconnected(f"the bus connection broke: {reason}"))
                future.exception()  # its waiter may be gone; that is no event for the log
        self._answers.clear()
        self.closed.set_result(reason)


def _daemon_call(member: str, signature: str = "", body: list[Any] | None = None) -> Message:
    return Message(
        destination=_DAEMON,
        path=_DAEMON_PATH,
        interface=_DAEMON,
        member=member,
        signature=signature,
        body=body or [],
    )


def _checked(answer: Message) -> Message:
    if answer.message_type is MessageType.ERROR:
        raise error_from(answer.error_name, answer.body)
    return answer
