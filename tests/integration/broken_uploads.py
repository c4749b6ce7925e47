# SPDX-License-Identifier: Apache-2.0
"""Requests that are not what they say, as bytes on a connection, and what may come of each."""

import gzip
import zlib
from dataclasses import dataclass

POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROBE = b"GET /api/thermal_mode HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
ZLIB = zlib.compress(bytes(1 << 20))
BOMB = gzip.compress(bytes(8 << 20))


@dataclass(frozen=True)
class Broken:
    """One of them.

    :ivar ends: whether the client closes its sending side behind it.
    :ivar statuses: what it may be answered with; nothing at all where it is empty.
    """

    name: str
    data: bytes
    statuses: frozenset[int] = frozenset({400})
    ends: bool = False


def form(*lines: bytes) -> bytes:
    """A request with these lines as its multipart body."""
    body = b"\r\n".join(lines)
    return POST + FORM + b"Content-Length: %d\r\n\r\n" % len(body) + body


def sized(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    """A request with a body of that length."""
    announced = len(body) if length is None else length
    lines = b"".join(header + b"\r\n" for header in headers)
    return POST + lines + b"Content-Length: %d\r\n\r\n" % announced + body


def chunked(chunks: bytes, *headers: bytes) -> bytes:
    """A request with a body in these chunks."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return POST + lines + CHUNKED + b"\r\n" + chunks


def only(*statuses: int) -> frozenset[int]:
    return frozenset(statuses)


BOUNDARY = b"Content-Type: multipart/form-data; boundary="
BASE64 = b"Content-Transfer-Encoding: base64"
PART = b'Content-Disposition: form-data; name="image"'
CHUNK = b"3\r\nabc\r\n0\r\n\r\n"
LINE = b"POST /predict HTTP/1.1\r\n"
GONE = only()  # who closed in the middle of a body gets no answer: there is nobody

CORPUS = (
    # truncated, wrong length
    Broken("truncated-inline", sized(b"abc", length=50), GONE, ends=True),
    Broken("truncated-copied", sized(bytes(70_000), length=90_000), GONE, ends=True),
    Broken("truncated-taken-over", sized(bytes(1 << 20), length=3 << 20), GONE, ends=True),
    Broken("stalled-inline", sized(b"abc", length=50), only(408)),
    Broken("stalled-taken-over", sized(bytes(1 << 20), length=3 << 20), only(408)),
    Broken("empty", sized(b"")),
    Broken("no-length", POST + b"\r\n", only(411)),
    Broken("too-long", sized(b"", length=1 << 40), only(413)),
    Broken("length-of-many-digits", POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n"),
    Broken("length-negative", POST + b"Content-Length: -1\r\n\r\nabc"),
    Broken("length-hexadecimal", POST + b"Content-Length: 0x3\r\n\r\nabc"),
    Broken("length-with-a-fraction", POST + b"Content-Length: 3.0\r\n\r\nabc"),
    Broken("length-empty", POST + b"Content-Length: \r\n\r\nabc", only(400, 411)),
    # chunks
    Broken("chunk-size-no-number", chunked(b"zz\r\nabc\r\n0\r\n\r\n")),
    Broken("chunk-size-negative", chunked(b"-3\r\nabc\r\n0\r\n\r\n")),
    Broken("chunk-size-prefixed", chunked(b"0x3\r\nabc\r\n0\r\n\r\n")),
    Broken("chunk-size-overflow", chunked(b"F" * 17 + b"\r\nabc\r\n0\r\n\r\n")),
    Broken("chunk-shorter-than-its-data", chunked(b"2\r\nabc\r\n0\r\n\r\n")),
    Broken("chunk-without-line-end", chunked(b"3\r\nabc0\r\n\r\n")),
    Broken("chunk-huge", chunked(b"7fffffffffffffff\r\nabc"), only(400, 408, 413)),
    Broken("chunks-without-end", chunked(b"3\r\nabc\r\n"), only(408)),
    Broken("chunks-truncated", chunked(b"10\r\nabc"), GONE, ends=True),
    Broken("chunks-end-in-bare-line-feeds", chunked(b"3\nabc\n0\n\n")),
    Broken("chunk-size-with-a-space", chunked(b"3 \r\nabc\r\n0\r\n\r\n")),
    Broken("chunk-extension-of-two-lines", chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n")),
    Broken(
        "chunks-with-a-flood-behind",
        chunked(CHUNK[:-2] + b"X: y\r\n" * 300 + b"\r\n"),
        only(431),
    ),
    Broken("chunks-with-a-length-behind", chunked(CHUNK[:-2] + b"Content-Length: 9\r\n\r\n")),
    Broken("chunks-of-nothing", chunked(b"0\r\n\r\n")),
    Broken("chunks-beyond-the-limit", chunked(b"300001\r\n" + bytes(0x300001)), only(413)),
    # compressed: never unfolded
    Broken("bomb-gzip", sized(BOMB, b"Content-Encoding: gzip"), only(415)),
    Broken(
        "bomb-deflate",
        sized(zlib.compress(bytes(1 << 20)), b"Content-Encoding: deflate"),
        only(415),
    ),
    Broken("bomb-twice", sized(BOMB, b"Content-Encoding: gzip, gzip"), only(415)),
    Broken("bomb-unknown", sized(b"abc", b"Content-Encoding: xz"), only(415)),
    Broken(
        "bomb-as-transfer", chunked(b"0\r\n\r\n").replace(b"chunked", b"gzip, chunked"), only(400)
    ),
    # smuggling: what one side takes for a body, the other for a request
    Broken("both-lengths", chunked(b"0\r\n\r\n" + NEXT, b"Content-Length: 5")),
    Broken(
        "both-lengths-other-order", POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + NEXT
    ),
    Broken("two-lengths", sized(b"abcd" + NEXT, b"Content-Length: 4")),
    Broken("two-lengths-in-one", POST + b"Content-Length: 4, 5\r\n\r\nabcde" + NEXT),
    Broken("two-encodings", chunked(b"0\r\n\r\n" + NEXT, b"Transfer-Encoding: identity")),
    Broken("encoding-unknown", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + NEXT),
    Broken("encoding-not-last", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + NEXT),
    Broken("space-before-colon", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + NEXT),
    Broken("space-before-length", POST + b"Content-Length : 3\r\n\r\nabc" + NEXT),
    Broken("vertical-tab", POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + NEXT),
    Broken("folded-header", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + NEXT),
    Broken("bare-line-feeds", POST.replace(b"\r\n", b"\n") + b"Content-Length: 3\n\nabc" + NEXT),
    Broken("nul-in-a-header", POST + b"X-A: a\0b\r\nContent-Length: 3\r\n\r\nabc" + NEXT),
    Broken("no-colon", POST + b"Content-Length\r\n\r\nabc" + NEXT),
    Broken("name-empty", POST + b": 3\r\nContent-Length: 3\r\n\r\nabc" + NEXT),
    Broken("length-with-a-plus", POST + b"Content-Length: +3\r\n\r\nabc"),
    Broken("length-of-two-words", POST + b"Content-Length: 3 3\r\n\r\nabc" + NEXT),
    Broken("two-equal-lengths", sized(b"abc", b"Content-Length: 3")),
    Broken("chunked-twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNK + NEXT),
    Broken("chunked-in-two-headers", chunked(CHUNK + NEXT, b"Transfer-Encoding: chunked")),
    Broken("chunked-in-quotes", POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNK + NEXT),
    Broken("chunked-with-a-weight", POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + CHUNK),
    Broken("chunked-behind-a-return", POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + CHUNK),
    Broken("chunked-on-http-1.0", chunked(CHUNK).replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    Broken("encoding-empty", sized(b"abc", b"Transfer-Encoding:")),
    Broken("folded-first", LINE + b" Host: localhost\r\nContent-Length: 3\r\n\r\nabc"),
    Broken("returns-alone", LINE.replace(b"\r\n", b"\r") + b"Host: localhost\r\r" + NEXT),
    Broken("control-in-a-value", POST + b"X: \x01\x7f\r\nContent-Length: 3\r\n\r\nabc"),
    Broken("control-in-a-name", POST + b"X\x01: y\r\nContent-Length: 3\r\n\r\nabc"),
    Broken("bytes-in-a-name", POST + b"X\xff: y\r\nContent-Length: 3\r\n\r\nabc"),
    # whom it is for
    Broken("two-hosts", sized(b"abc", b"Host: evil.example")),
    Broken("no-host", LINE + b"Content-Length: 3\r\n\r\nabc"),
    Broken("host-of-a-user", sized(b"").replace(b"localhost", b"evil@localhost"), only(403)),
    Broken("host-of-two", sized(b"").replace(b"localhost", b"localhost, evil"), only(403)),
    Broken("absolute-elsewhere", sized(b"abc").replace(b"/", b"http://evil/", 1), only(403)),
    Broken("absolute-nowhere", sized(b"abc").replace(b"/", b"http://[::1/", 1), only(400, 403)),
    Broken("another-place", sized(b"abc").replace(b"/", b"//evil.example/", 1), only(404)),
    # floods
    Broken("headers-without-end", POST + b"X: y\r\n" * 4000, only(431)),
    Broken("headers-of-a-megabyte", sized(b"abc", b"X: " + b"y" * (1 << 20)), only(431)),
    Broken("headers-of-many-names", sized(b"abc", *[b"X: y"] * 500), only(431)),
    Broken("headers-slow", POST + b"X: ", only(408)),
    Broken("nothing-but-nul", bytes(5000)),
    # not HTTP as we speak it
    Broken("version-2", sized(b"abc").replace(b"HTTP/1.1", b"HTTP/2.0", 1)),
    Broken("method-lower", sized(b"abc").replace(b"POST", b"post", 1)),
    Broken("method-unknown", sized(b"abc").replace(b"POST", b"BREW", 1)),
    Broken("method-wrong", sized(b"abc").replace(b"POST", b"PATCH", 1), only(405)),
    Broken("method-trace", sized(b"").replace(b"POST", b"TRACE", 1), only(405)),
    Broken("method-long", sized(b"abc").replace(b"POST", b"P" * 9000, 1)),
    Broken("nul-in-the-method", sized(b"abc").replace(b"POST", b"PO\0ST", 1)),
    Broken("nul-in-the-path", sized(b"abc").replace(b"/", b"/\0", 1)),
    Broken("bytes-in-the-path", sized(b"abc").replace(b"/", b"/\xff", 1)),
    Broken("space-in-the-path", sized(b"abc").replace(b"/", b"/ ", 1)),
    Broken("version-9", b"POST /predict HTTP/9.9\r\nHost: localhost\r\n\r\n"),
    Broken("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Broken("method-of-bytes", b"\xff\xfe /predict HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Broken("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n\r\n"),
    Broken(
        "line-too-long",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        only(431),
    ),
    Broken(
        "upgrade",
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
        only(400, 426),
    ),
    # forms
    Broken("form-of-nothing", form()),
    Broken("form-without-end", form(b"--b", PART, b"", b"abc")),
    Broken("form-cut-in-its-headers", form(b"--b", PART)),
    Broken("form-of-another-boundary", form(b"--c", PART, b"", b"abc", b"--c--")),
    Broken("form-without-a-name", form(b"--b", b"X: y", b"", b"abc", b"--b--")),
    Broken("form-of-many-parts", form(*[b"--b", PART, b"", b"a"] * 50, b"--b--")),
    Broken("form-with-endless-headers", form(b"--b", b"X: " + b"y" * 10_000, b"", b"--b--")),
    Broken(
        "form-transfer-encoded",
        form(b"--b", PART, b"Content-Transfer-Encoding: base64", b"", b"YWJj", b"--b--"),
    ),
    Broken(
        "form-with-a-name-whole-and-in-pieces",
        form(b"--b", b'Content-Disposition: form-data; name*="a"; name*0="b"', b"", b"a", b"--b--"),
    ),
    Broken("boundary-empty", sized(b"abc", BOUNDARY)),
    Broken(
        "boundary-too-long",
        sized(b"abc", BOUNDARY + b"b" * 100),
    ),
    Broken("boundary-of-bytes", sized(b"abc", BOUNDARY + b"\xff")),
    Broken(
        "boundary-whole-and-in-pieces",
        sized(b"abc", BOUNDARY[:-1] + b"*=utf-8''a; boundary*0=b"),
    ),
    Broken("two-types", sized(b"abc", b"Content-Type: image/png", b"Content-Type: image/jpeg")),
    Broken("type-unknown", sized(b"abc", b"Content-Type: text/html"), only(415)),
    Broken("type-broken", sized(b"abc", b"Content-Type: ;;;"), only(415)),
)
