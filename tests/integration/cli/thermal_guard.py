# SPDX-License-Identifier: Apache-2.0
"""Thermal guards' sockets and snapshots, answering as told."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gpuwarden import names
from gpuwarden.control.requests import (
    CLEAR_OVERRIDE,
    HISTORY,
    HISTORY_ROWS_LIMIT,
    OVERRIDE,
    RELEASE,
    STATUS,
    HistoryAnswer,
    HistoryRequest,
    HistoryRow,
    OverrideRequest,
    ReleaseRequest,
    ThermalStatusAnswer,
)
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.socket import serve
from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState


def rows(seconds: int, celsius: float = 40.0) -> list[HistoryRow]:
    """The last seconds, up to now."""
    now = time.time_ns() // 1000
    return [
        HistoryRow(
            unix_microseconds=now - (seconds - n) * 1_000_000,
            celsius=celsius,
            celsius_lowest=celsius - 1,
            celsius_highest=celsius + 1,
            memory_celsius=celsius + 5,
            watts=300.0,
            watts_highest=310.0,
            limit_watts=350.0,
            state=ThermalState.NORMAL,
        )
        for n in range(seconds)
    ]


class ThermalGuard:
    """Answers over the control socket of its card; keeps what it was asked for."""

    def __init__(self, status: ThermalStatusAnswer, history: list[HistoryRow]) -> None:
        self.status = status
        self.history = history
        self.asked: list[str] = []
        self.orders: list[dict[str, Any]] = []

    def handlers(self) -> dict[str, Any]:
        return {
            STATUS: self._tell_status,
            HISTORY: self._tell_history,
            OVERRIDE: lambda request: self._take(OverrideRequest.model_validate(request)),
            CLEAR_OVERRIDE: self._take_plain,
            RELEASE: lambda request: self._take(ReleaseRequest.model_validate(request)),
        }

    def _tell_status(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(STATUS)
        return self.status.model_dump(mode="json")

    def _tell_history(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(HISTORY)
        after = HistoryRequest.model_validate(request).after_unix_microseconds
        left = [row for row in self.history if row.unix_microseconds > after]
        page = HistoryAnswer(rows=left[:HISTORY_ROWS_LIMIT], more=len(left) > HISTORY_ROWS_LIMIT)
        return page.model_dump(mode="json")

    def _take(self, request: Any) -> dict[str, Any]:
        self.orders.append(request.model_dump(exclude={"version"}))
        return {}

    def _take_plain(self, request: dict[str, Any]) -> dict[str, Any]:
        self.orders.append({"request": request["request"]})
        return {}


@asynccontextmanager
async def guarding(guard: ThermalGuard, *, uid: int | None = None) -> AsyncIterator[None]:
    """The guard at its card's socket, for this user (or for another one alone)."""
    path = names.thermal_control_socket(guard.status.data.index)
    allowed = {os.getuid() if uid is None else uid}
    server = await serve(path, guard.handlers(), allowed_uids=allowed)
    try:
        yield
    finally:
        await server.close()


def publish(data: ThermalData, valid_milliseconds: int = 60_000) -> None:
    """The card's snapshot."""
    path = names.thermal_snapshot_file(data.index)
    path.parent.mkdir(exist_ok=True)
    SnapshotWriter(path, f"thermal@{data.index}", valid_milliseconds).publish(data)
