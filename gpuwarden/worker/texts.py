# SPDX-License-Identifier: Apache-2.0
"""Texts on the worker channel: how long they may be, and how they become Unicode.

The gateway hangs up on a worker that sends a longer one, or half of a surrogate pair. So whatever
may quote a request, an engine or a file's name is sent by ``sendable``.

The gateway and the worker both import this module: standard library only, Python 3.9 and newer.
"""

from typing import Iterator

KIND_LIMIT_CHARACTERS = 100  # an error's type
PARAM_LIMIT_CHARACTERS = 200  # what the caller should correct
TEXT_LIMIT_CHARACTERS = 2000  # of an error, or of what a probe found
PIECE_CHARACTERS = 8192  # of a CHUNK: six bytes of JSON each


def sendable(text: object, limit: int) -> str:
    """The text as the gateway takes it, cut; halves of surrogate pairs become "?".

    JSON and the names of files may hold such halves; no encoder takes them.
    """
    return str(text)[:limit].encode("utf-8", "replace").decode("utf-8")


def pieces_of(text: str) -> Iterator[str]:
    """A text as frames carry it, in its order."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield sendable(text[start : start + PIECE_CHARACTERS], PIECE_CHARACTERS)
