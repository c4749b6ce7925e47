# SPDX-License-Identifier: Apache-2.0
"""Pieces of answers on their way to who streams: all of one step in one record.

An engine with slots makes a piece of each answer at every step. One record each would cost more of
a core than making them does.
"""

import asyncio
from typing import Any, Callable, Dict, List, Tuple

PIECES_LIMIT_CHARACTERS = 12288  # of a record's pieces: six bytes of JSON each, at most

Piece = Dict[str, Any]
Send = Callable[[Any, List[Piece]], None]


class Telling:
    """Collects what is told within one turn of the event loop.

    :param send: sends pieces to one session.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._told: List[Tuple[Any, Piece]] = []

    def add(self, session: Any, piece: Piece) -> None:
        """A piece that ``session`` is to be told with this turn's others."""
        if not self._told:
            asyncio.get_running_loop().call_soon(self.flush)
        self._told.append((session, piece))

    def flush(self) -> None:
        """Send what was told so far; what is sent next comes after it."""
        told, self._told = self._told, []
        for session, pieces in grouped(told):
            self._send(session, pieces)


def grouped(told: List[Tuple[Any, Piece]]) -> List[Tuple[Any, List[Piece]]]:
    """Pieces as they share records, in their order."""
    groups: List[Tuple[Any, List[Piece]]] = []
    room = 0
    for session, piece in told:
        size = len(piece["text"])
        if not groups or groups[-1][0] is not session or size > room:
            groups.append((session, []))
            room = PIECES_LIMIT_CHARACTERS
        groups[-1][1].append(piece)
        room -= size
    return groups
