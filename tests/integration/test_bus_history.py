# SPDX-License-Identifier: Apache-2.0
# A card's history over the bus: the seconds asked for, in the contract's tuples.

import json
import time
from collections.abc import AsyncIterator

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.control.requests import HISTORY_ROWS_LIMIT, HistoryAnswer, HistoryRow
from gpuwarden.control.socket import RECORD_LIMIT_BYTES
from gpuwarden.names import BUS_NAME, gpu_object
from gpuwarden.values import ThermalState
from tests.integration.bus_peers import client, guarded
from tests.integration.private_bus import ROOT, PrivateBus, private_bus
from tests.integration.thermal_peer import ThermalPeer, row, thermal_peers

THERMAL = f"{BUS_NAME}.Thermal"


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus() as running:
        yield running


@pytest.fixture
async def card(bus: PrivateBus) -> AsyncIterator[ThermalPeer]:
    async with thermal_peers(bus.folder, 0) as peers, guarded(bus):
        yield peers[0]


@pytest.fixture
async def caller(bus: PrivateBus, card: ThermalPeer) -> AsyncIterator[Bus]:
    async with client(bus) as connection:
        yield connection


async def history(caller: Bus, seconds: int) -> list[list[object]]:
    path = gpu_object(0)
    (rows,) = await caller.call(BUS_NAME, path, THERMAL, "GetHistory", "u", [seconds])
    assert isinstance(rows, list)
    return rows


async def test_a_history_holds_the_seconds_asked_for_and_no_more(
    card: ThermalPeer, caller: Bus
) -> None:
    now = time.time_ns() // 1000
    hot = row(now - 2_000_000, celsius=83.5, limit_watts=249.6, state=ThermalState.ALERT)
    unknown = row(now - 1_000_000, watts=None, limit_watts=None, state=ThermalState.BLIND)
    card.rows = [row(now - 30_000_000), hot, unknown]
    rows = await history(caller, 10)
    assert rows[0] == [hot.unix_microseconds, 83.5, 410.25, 250, "alert"]
    assert (rows[1][1], rows[1][2] != rows[1][2], rows[1][3:]) == (61.5, True, [0, "blind"])
    assert len(rows) == 2


async def test_an_hour_comes_in_pages_and_whole(
    bus: PrivateBus, card: ThermalPeer, caller: Bus
) -> None:
    first = time.time_ns() // 1000 - 3590 * 1_000_000
    card.rows = [row(first + second * 1_000_000) for second in range(3590)]
    rows = await history(caller, 3600)
    assert [one[0] for one in rows] == [one.unix_microseconds for one in card.rows]
    assert card.pages == -(-3590 // HISTORY_ROWS_LIMIT)
    status, output = await bus.busctl(
        ROOT, "call", BUS_NAME, gpu_object(0), THERMAL, "GetHistory", "u", "3600"
    )
    assert (status, output.split()[:2]) == (0, ["a(tddus)", "3590"])


async def test_an_empty_history_is_no_error(card: ThermalPeer, caller: Bus) -> None:
    assert await history(caller, 60) == []


def test_a_page_of_the_longest_rows_fits_into_a_record() -> None:
    third = 1000 / 3
    longest = HistoryRow(
        unix_microseconds=2**53,
        celsius=third,
        celsius_lowest=third,
        celsius_highest=third,
        memory_celsius=third,
        watts=third,
        watts_highest=third,
        limit_watts=third,
        state=ThermalState.RECOVERING,
    )
    page = HistoryAnswer(rows=[longest] * HISTORY_ROWS_LIMIT, more=True)
    assert (
        len(json.dumps({"version": 1, "answer": page.model_dump(mode="json")})) < RECORD_LIMIT_BYTES
    )
