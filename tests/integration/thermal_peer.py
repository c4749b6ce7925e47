# SPDX-License-Identifier: Apache-2.0
"""What stands for the cards' thermal guards: real control sockets, answers that a test sets."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwarden.control.requests import (
    HISTORY_ROWS_LIMIT,
    HistoryAnswer,
    HistoryRequest,
    HistoryRow,
    OverrideRequest,
    ReleaseRequest,
)
from gpuwarden.control.socket import ControlError, serve
from gpuwarden.values import ThermalState

Document = dict[str, Any]


def row(unix_microseconds: int, **changes: object) -> HistoryRow:
    return HistoryRow(
        unix_microseconds=unix_microseconds,
        celsius=61.5,
        celsius_lowest=61.0,
        celsius_highest=62.0,
        watts=410.25,
        limit_watts=700.0,
        state=ThermalState.NORMAL,
    ).model_copy(update=changes)


@dataclass
class ThermalPeer:
    """One card's thermal guard: checks requests by their models, takes down what it did.

    :ivar refusal: what it raises instead of acting.
    """

    rows: list[HistoryRow] = field(default_factory=list)
    done: list[Document] = field(default_factory=list)
    pages: int = 0
    refusal: ControlError | None = None

    def handlers(self) -> dict[str, Any]:
        return {
            "override": lambda request: self._act(OverrideRequest.model_validate(request)),
            "release": lambda request: self._act(ReleaseRequest.model_validate(request)),
            "clear-override": self._take,
            "reload": self._take,
            "history": self._history,
        }

    def _act(self, request: OverrideRequest | ReleaseRequest) -> Document:
        return self._take(request.model_dump())

    def _take(self, request: Document) -> Document:
        if self.refusal is not None:
            raise self.refusal
        self.done.append({key: value for key, value in request.items() if key != "version"})
        return {}

    def _history(self, document: Document) -> Document:
        request = HistoryRequest.model_validate(document)
        self.pages += 1
        after = [r for r in self.rows if r.unix_microseconds > request.after_unix_microseconds]
        page = after[:HISTORY_ROWS_LIMIT]
        answer = HistoryAnswer(rows=page, more=len(after) > len(page))
        return answer.model_dump(mode="json")


def socket_of(folder: Path, gpu_index: int) -> Path:
    return folder / f"thermal-{gpu_index}.sock"


@asynccontextmanager
async def thermal_peers(folder: Path, *indices: int) -> AsyncIterator[dict[int, ThermalPeer]]:
    """A thermal guard for each of these cards, answering below ``folder``."""
    peers = {index: ThermalPeer() for index in indices}
    async with AsyncExitStack() as stack:
        for index, peer in peers.items():
            path = socket_of(folder, index)
            server = await serve(path, peer.handlers(), allowed_uids={os.getuid()})
            stack.push_async_callback(server.close)
        yield peers


@dataclass
class NodeOfCards:
    """The node as the commands see it: two cards, and who is on them."""

    present: list[int] = field(default_factory=lambda: [0, 1])
    workers_on: dict[int, list[int]] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)

    def cards(self) -> list[int]:
        return self.present

    def occupants(self, gpu_index: int) -> list[int]:
        return self.workers_on.get(gpu_index, [])

    @contextmanager
    def releasing(self, gpu_index: int) -> Iterator[None]:
        self.held.add(gpu_index)
        try:
            yield
        except BaseException:
            self.held.discard(gpu_index)
            raise
