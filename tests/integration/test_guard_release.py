# SPDX-License-Identifier: Apache-2.0
"""A card is released when both of its services have closed it; otherwise neither stays away."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.bus.errors import Failed
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import ScanData
from gpuwarden.guard.published import units_that_hold
from gpuwarden.guard.thermal import ThermalGuards
from gpuwarden.values import ThermalState
from tests.integration.bus_states import card
from tests.integration.thermal_peer import NodeOfCards, ThermalPeer, socket_of, thermal_peers

SCAN, THERMAL = "medgemma-scan@0.service", "medgemma-thermal@0.service"
LONG, SHORT = 3_600_000, 0


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[ThermalPeer]:
    async with thermal_peers(tmp_path, 0) as peers:
        yield peers[0]


def guards(folder: Path, node: NodeOfCards, *holding: list[str]) -> ThermalGuards:
    """The guard's side; what still has the card open, look by look, the last for ever."""
    looks = iter(holding)
    last = holding[-1]
    return ThermalGuards(node, partial(socket_of, folder), lambda _: next(looks, last), 0.5)


async def test_a_release_returns_when_both_have_closed_the_card(
    tmp_path: Path, peer: ThermalPeer
) -> None:
    node = NodeOfCards()
    await guards(tmp_path, node, [THERMAL, SCAN], [SCAN], []).release(0, 600)
    assert [each["request"] for each in peer.done] == ["release"]
    assert node.held == {0}


async def test_a_service_that_does_not_let_go_takes_the_release_back(
    tmp_path: Path, peer: ThermalPeer
) -> None:
    node = NodeOfCards()
    with pytest.raises(Failed, match=rf"not released: {SCAN} did not close it within 0.5 s"):
        await guards(tmp_path, node, [THERMAL, SCAN], [SCAN]).release(0, 600)
    assert [each["request"] for each in peer.done] == ["release", "clear-override"]
    assert node.held == set()


@pytest.mark.parametrize(
    ("thermal", "scan", "valid", "wanted"),
    [
        (ThermalState.RELEASED, "released", LONG, []),
        (ThermalState.RELEASED, "scanning", LONG, [SCAN]),
        (ThermalState.NORMAL, "released", LONG, [THERMAL]),
        (ThermalState.BLIND, "blind", LONG, [THERMAL, SCAN]),
        (ThermalState.NORMAL, "scanning", SHORT, []),  # both are dead, and hold nothing
    ],
)
def test_who_holds_a_card_is_read_from_what_both_publish(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    thermal: ThermalState,
    scan: str,
    valid: int,
    wanted: list[str],
) -> None:
    monkeypatch.setattr(names, "thermal_snapshot_file", lambda _: tmp_path / "thermal.json")
    monkeypatch.setattr(names, "scan_snapshot_file", lambda _: tmp_path / "scan.json")
    assert units_that_hold(0) == []  # neither has ever run
    heat = card(0, state=thermal)
    SnapshotWriter(tmp_path / "thermal.json", "thermal@0", valid).publish(heat)
    holders = ScanData.model_validate({"gpu_index": 0, "gpu_uuid": "x", "state": scan, "scans": 1})
    SnapshotWriter(tmp_path / "scan.json", "scan@0", valid).publish(holders)
    assert units_that_hold(0) == wanted
