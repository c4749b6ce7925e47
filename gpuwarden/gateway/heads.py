# SPDX-License-Identifier: Apache-2.0
"""Heads that are known on their connection: the next request that has the same one needs no parser.

A client sends the same head with each of its requests. To parse it once more, with its headers and
a stream for its body, costs a small request a fifth of its way. Where the parser stands between two
messages, the same bytes are the same request; so those are looked at, and nothing of them is parsed
here. Whatever is not certain goes through the parser.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD

from gpuwarden.gateway.admission import Upload

END = b"\r\n\r\n"
LIMIT_BYTES = 8192  # of a head that is kept as it came, for each connection


class Known(NamedTuple):
    """A head that has passed the checks: what has the same one passes them, too.

    :ivar rules: what was checked by.
    :ivar data: the head as it came; empty where it isn't known where it began.
    :ivar size: bytes of a request that begins with it.
    """

    head: tuple[object, ...]
    rules: tuple[object, ...]
    upload: Upload
    message: RawRequestMessage
    data: bytes
    size: int

    def begins(self, data: bytes) -> bool:
        """Whether this is such a request, alone and whole."""
        return len(data) == self.size and data.startswith(self.data)


class Sieve:
    """A parser of aiohttp's, out of whose messages one may be taken.

    :param take: given a message that came alone, and the bytes of its head (see ``whole_head``);
        whether it has been taken.
    :param error_of: what whoever reads a body is told where it breaks off.
    :ivar is_between: whether the parser surely stands between two messages; once it is unknown, it
        stays so.
    :ivar is_broken: what came ended a body in its middle: nothing more can be read.
    """

    def __init__(
        self, parser: Any, take: Any, error_of: Callable[[HttpProcessingError], Exception]
    ) -> None:
        self._parser = parser
        self._take = take
        self._error_of = error_of
        self._payload: Any = EMPTY_PAYLOAD  # of the last message: what comes next may be of it
        self.is_between = True
        self.is_broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> tuple[Any, bool, bytes]:
        """What is left for aiohttp."""
        was_between, self.is_between = self.is_between, False
        messages, upgraded, tail = self._feed(data)
        if messages:
            self._payload = messages[-1][1]
        if len(messages) != 1 or upgraded:
            return messages, upgraded, tail
        head = whole_head(data, *messages[0]) if was_between else b""
        self.is_between = bool(head)
        if self._take(*messages[0], head):
            self._parser.message_consumed()
            return (), upgraded, tail
        return messages, upgraded, tail

    def feed_rest(self, data: bytes) -> None:
        """Parse what is left of the body that is coming in; no message begins behind it."""
        if not self._payload.is_eof():
            self._feed(data)

    def _feed(self, data: bytes) -> tuple[Any, bool, bytes]:
        try:
            fed: tuple[Any, bool, bytes] = self._parser.feed_data(data)
        except HttpProcessingError as error:
            if self._payload.is_eof():
                raise
            # Whoever reads the body that is coming in would wait for the rest of it.
            self.is_broken = True
            self._payload.set_exception(self._error_of(error))
            self._payload.feed_eof()  # or aiohttp, too, would read on, and tell of it as a fault
            return (), False, b""
        return fed


def whole_head(data: bytes, message: RawRequestMessage, payload: Any) -> bytes:
    """The head of the only message in ``data``; empty unless surely nothing but that is in it.

    What came before its first line, or ended a line without CR, leaves the end of the head unsure.
    """
    end = data.find(END) + len(END)
    head = data[:end]
    if message.chunked or message.upgrade or not payload.is_eof() or end < len(END):
        return b""
    length = int(message.headers.get("Content-Length", "0"))
    is_plain = head.count(b"\n") == head.count(b"\r\n") and not head.startswith(b"\r")
    return head if end + length == len(data) and is_plain else b""
