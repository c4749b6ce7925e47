# SPDX-License-Identifier: Apache-2.0
"""A request is known by its bytes only where the parser would surely say the same of it."""

import asyncio
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage

from gpuwarden.gateway.admission import Upload
from gpuwarden.gateway.heads import Known, Sieve

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
WHOLE = HEAD + b"image"


class Parsed:
    """What a sieve was given in pieces, by their heads as it saw them."""

    def __init__(self, *, takes: bool = True) -> None:
        loop = asyncio.get_running_loop()
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
        self.heads: list[bytes] = []
        self._takes = takes
        self.sieve = Sieve(parser, self._take, lambda error: ValueError("it breaks off"))

    def _take(self, message: RawRequestMessage, payload: Any, head: bytes) -> bool:
        self.heads.append(head)
        return self._takes

    def feed(self, *pieces: bytes) -> "Parsed":
        for piece in pieces:
            self.sieve.feed_data(piece)
        return self


async def test_a_whole_request_is_known_by_its_head() -> None:
    parsed = Parsed().feed(WHOLE, WHOLE)
    assert parsed.heads == [HEAD, HEAD]
    assert parsed.sieve.is_between


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD, b"image"],
        [HEAD[:20], HEAD[20:] + b"image"],
        [WHOLE + HEAD[:20]],
        [WHOLE + WHOLE],
        [b"\r\n" + WHOLE],
        [b"\r\n\r\n" + WHOLE],
        [HEAD + b"ima", b"ge"],
        [HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"],
        [WHOLE + b"\r\n"],
    ],
)
async def test_what_is_cut_otherwise_leaves_it_unknown_for_good(pieces: list[bytes]) -> None:
    parsed = Parsed().feed(*pieces)
    assert not any(parsed.heads)
    assert not parsed.sieve.is_between


async def test_lines_without_a_carriage_return_are_no_head_to_go_by() -> None:
    """An end of a head that stands in a body must not be taken for the one that counts."""
    parsed, bare = Parsed(), HEAD.replace(b"\r\n", b"\n")
    body = b"\r\n\r\nx"
    try:
        parsed.feed(bare + body)
    except Exception:  # noqa: BLE001 - whichever of its errors: it is not taken
        assert parsed.heads == []
    assert not any(parsed.heads)
    assert not parsed.sieve.is_between


async def test_others_between_leave_it_known() -> None:
    parsed = Parsed(takes=False).feed(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", WHOLE)
    assert parsed.heads[1] == HEAD


async def test_only_a_whole_request_with_that_head_is_known() -> None:
    parsed = Parsed()
    parsed.feed(WHOLE)
    upload = Upload(5, "application/octet-stream", None, None)
    message: Any = None
    known = Known((), (), upload, message, HEAD, len(WHOLE))
    assert known.begins(HEAD + b"other")
    for other in (HEAD, HEAD + b"four", HEAD + b"longer", WHOLE[1:] + b"x", WHOLE.lower()):
        assert not known.begins(other)


async def test_who_reads_a_body_that_breaks_off_is_told_in_our_words_and_nothing_follows() -> None:
    parsed = Parsed(takes=False)
    chunked = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    ((_, payload),), _, _ = parsed.sieve.feed_data(chunked)
    assert parsed.sieve.feed_data(b"zz\r\n") == ((), False, b"")
    assert parsed.sieve.is_broken
    with pytest.raises(ValueError, match="it breaks off"):
        await payload.read()
