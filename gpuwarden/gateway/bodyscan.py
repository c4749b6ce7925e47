"""What the gateway looks for in a chat's body without parsing it: references, the model's name.

Both are hints for what must be known before a worker is: which buffers to hand over, and whether
the node has that model at all. The worker parses the body, and its word counts.
"""

import asyncio
import re
from collections.abc import Iterator

from gpuwarden.gateway.multipart import WINDOW_BYTES, YIELD_BYTES

REFERENCE = re.compile(rb"gpuwarden:\\?/\\?/([0-9a-f]{32})(?![0-9A-Za-z])")
REFERENCE_BYTES = 64  # more than one takes, slashes escaped
REFERENCES_LIMIT = 8

SCANNED_BYTES = 64 << 10  # at either end of the body
TOKENS_LIMIT = 4000  # brackets and strings, at either end: 2 ms
MARK = re.compile(rb'["{}\[\]]')
STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.S)
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
    head = bytes(view[:SCANNED_BYTES])
    named = _named(head, 0)
    start = len(view) - SCANNED_BYTES
    if named is not None or start <= 0:
        return named
    if view[start - 1] == BACKSLASH:  # or the first byte would lose its escape
        run = bytes(view[max(0, start - ESCAPES_LIMIT) : start])
        start -= len(run) - len(run.rstrip(b"\\"))
    return _named_at_the_end(bytes(view[start:]))


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


def _named_at_the_end(tail: bytes) -> str | None:
    """The same in the last bytes, which may begin within a string."""
    plain = BACKSLASHES.sub(_without_escapes, tail)
    # The body ends outside of a string: an odd number of quotes says that the tail begins in one.
    text = tail[first_quote(tail) :] if plain.count(b'"') % 2 else tail
    tokens = list(_tokens(text))
    if len(tokens) == TOKENS_LIMIT:
        return None
    return _named(text, -sum(DEPTH.get(token, 0) for token, _ in tokens))


def _without_escapes(match: re.Match[bytes]) -> bytes:
    """What is left of a run of backslashes and the byte behind: that byte, if it isn't escaped."""
    run = match[0]
    backslashes = len(run) - len(run.lstrip(b"\\"))
    return run[backslashes:] if backslashes % 2 == 0 else b""


def first_quote(tail: bytes) -> int:
    """The place behind the first quote that is not escaped."""
    end = CLOSING.match(tail)
    return end.end() if end else len(tail)
