# SPDX-License-Identifier: Apache-2.0
"""What the gateway looks for in a chat's body without parsing it: references, model, parameters.

All are hints for what must be known before a worker is: which buffers to hand over, whether the
node has that model at all, which requests are alike. The worker parses the body, and its word
counts.
"""

import asyncio
import re
from collections.abc import Iterator
from typing import NamedTuple

from gpuwarden.gateway.multipart import WINDOW_BYTES, YIELD_BYTES

REFERENCE = re.compile(rb"gpuwarden:\\?/\\?/([0-9a-f]{32})(?![0-9A-Za-z])")
REFERENCE_BYTES = 64  # more than one takes, slashes escaped
REFERENCES_LIMIT = 8

SCANNED_BYTES = 64 << 10  # at either end of the body
TOKENS_LIMIT = 4000  # brackets and strings, at either end: 2 ms
MARK = re.compile(rb'["{}\[\]]')
STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.S)
COLON = re.compile(rb"\s*+:")
BETWEEN = b" \t\r\n,"  # a member's value and the next one's name
MESSAGES = b'"messages"'
NAME = re.compile(rb'\s*+:\s*+"([^"\\]{1,128})"')
CLOSING = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.S)
ESCAPES_LIMIT = 1024
BACKSLASH = ord("\\")
DEPTH = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
BACKSLASHES = re.compile(rb"\\++.?", re.S)


async def references_in(view: memoryview) -> list[str]:
    """The ids that a body refers to, each once, in order; at most one more than are allowed."""
    found: dict[str, None] = {}
    since_yield = 0
    for offset in range(0, len(view), WINDOW_BYTES):
        window = bytes(view[offset : offset + WINDOW_BYTES + REFERENCE_BYTES])
        if b"gpuwarden:" in window:
            found |= dict.fromkeys(one.decode("ascii") for one in REFERENCE.findall(window))
        if len(found) > REFERENCES_LIMIT:
            break
        since_yield += WINDOW_BYTES
        if since_yield >= YIELD_BYTES:
            since_yield = 0
            await asyncio.sleep(0)
    return list(found)[: REFERENCES_LIMIT + 1]


def model_in(view: memoryview) -> str | None:
    """The model that a chat's body names at its outermost level; None where that is not certain.

    Looked for at the start, then at the end (where OpenAI's client writes it).
    """
    named = _named(bytes(view[:SCANNED_BYTES]), 0)
    if named is not None or len(view) <= SCANNED_BYTES:
        return named
    tail = _tail(view)
    depth = _depth_before(tail)
    return None if depth is None else _named(tail, depth)


def members_in(view: memoryview) -> dict[bytes, bytes] | None:
    """A chat's members at its outermost level, names and values as they are written.

    None where that is not certain. Of a long chat its ends are looked at; what lies between is
    taken for messages if both of them say so.
    """
    head = _outline(bytes(view[:SCANNED_BYTES]), 0)
    if len(view) <= SCANNED_BYTES:
        return head.members if head.depth == 0 and head.is_all else None
    tail = _tail(view)
    depth = _depth_before(tail)
    if depth is None or depth < 2 or head.begun != MESSAGES or not head.is_all:
        return None
    return head.members | _outline(tail, depth).members


class _Outline(NamedTuple):
    """The members that end in a text, the name of the one that goes on behind it, its depth."""

    members: dict[bytes, bytes]
    begun: bytes
    depth: int
    is_all: bool


def _outline(text: bytes, depth: int) -> _Outline:
    members: dict[bytes, bytes] = {}
    name, start, count = b"", 0, 0
    for token, end in _tokens(text):
        count += 1
        outer = depth
        depth += DEPTH.get(token, 0)
        if outer != 1 or depth > 1:
            continue
        colon = COLON.match(text, end) if depth == 1 else None
        if name and (colon or depth == 0):
            members[name] = text[start : end - len(token)].strip(BETWEEN)
            name = b""
        if colon:
            name, start = token, colon.end()
    return _Outline(members, name, depth, count < TOKENS_LIMIT)


def _tail(view: memoryview) -> bytes:
    """The last bytes of a body, from a place on that lies outside of any string."""
    start = len(view) - SCANNED_BYTES
    if view[start - 1] == BACKSLASH:  # or the first byte would lose its escape
        run = bytes(view[max(0, start - ESCAPES_LIMIT) : start])
        start -= len(run) - len(run.rstrip(b"\\"))
    tail = bytes(view[start:])
    plain = BACKSLASHES.sub(_without_escapes, tail)
    # The body ends outside of a string: an odd number of quotes says that the tail begins in one.
    return tail[first_quote(tail) :] if plain.count(b'"') % 2 else tail


def _depth_before(tail: bytes) -> int | None:
    """How deep a body's last bytes begin; None where they have too much in them."""
    tokens = list(_tokens(tail))
    return None if len(tokens) == TOKENS_LIMIT else -sum(DEPTH.get(one, 0) for one, _ in tokens)


def _tokens(text: bytes) -> Iterator[tuple[bytes, int]]:
    """Brackets and whole strings (without their quotes), with the place behind each.

    Ends where a string has no end, and after ``TOKENS_LIMIT``: a hostile body costs no more.
    """
    position = 0
    for _ in range(TOKENS_LIMIT):
        mark = MARK.search(text, position)
        if mark is None:
            return
        if mark[0] != b'"':
            position = mark.end()
            yield mark[0], position
            continue
        string = STRING.match(text, mark.start())
        if string is None:
            return
        position = string.end()
        yield string[0], position


def _named(text: bytes, depth: int) -> str | None:
    """The value of "model" among the members at depth 1, in a text that starts at ``depth``."""
    for token, end in _tokens(text):
        depth += DEPTH.get(token, 0)
        if depth == 1 and token == b'"model"' and (name := NAME.match(text, end)):
            return name[1].decode("utf-8", "replace")
    return None


def _without_escapes(match: re.Match[bytes]) -> bytes:
    """What is left of a run of backslashes and the byte behind: that byte, if it isn't escaped."""
    run = match[0]
    backslashes = len(run) - len(run.lstrip(b"\\"))
    return run[backslashes:] if backslashes % 2 == 0 else b""


def first_quote(tail: bytes) -> int:
    """The place behind the first quote that is not escaped."""
    end = CLOSING.match(tail)
    return end.end() if end else len(tail)
