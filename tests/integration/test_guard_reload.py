# SPDX-License-Identifier: Apache-2.0
# A reload asked of every component: who takes the new configuration, who keeps the old and why.

import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from gpuwarden.config import Configuration, digest
from gpuwarden.control.requests import ReloadAnswer
from gpuwarden.control.socket import ControlError, serve
from gpuwarden.guard import reload
from gpuwarden.guard.thermal import ThermalGuards
from gpuwarden.systemd.units import JobError
from tests.integration.thermal_peer import NodeOfCards, ThermalPeer, socket_of, thermal_peers

REFUSAL = "alert 99 C: this card shuts down at 96 C"


@pytest.fixture
async def cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[int, ThermalPeer]]:
    """Two cards' guards and a gateway, on a node whose files are the defaults."""
    monkeypatch.setattr(reload, "load_configuration", lambda rules: Configuration())
    monkeypatch.setattr(reload, "ACCEPTED_CONFIGURATION_FILE", tmp_path / "accepted.json")
    monkeypatch.setattr(reload, "GATEWAY_CONTROL_SOCKET", tmp_path / "gateway.sock")
    level = logging.getLogger().level
    gateway = await serve(tmp_path / "gateway.sock", {"reload": lambda request: {}})
    async with thermal_peers(tmp_path, 0, 1) as peers:
        yield peers
    await gateway.close()
    logging.getLogger().setLevel(level)


async def asked(
    folder: Path, *present: int, plan_fails: bool = False, tuning_fails: str = ""
) -> ReloadAnswer:
    async def replan(configuration_digest: str) -> None:
        assert configuration_digest == digest(Configuration())
        if plan_fails:
            raise JobError("medgemma-numa.service: failed")

    async def retune() -> None:
        if tuning_fails:
            raise JobError(tuning_fails)

    guards = ThermalGuards(NodeOfCards(), partial(socket_of, folder))
    return await reload.reload(replan, lambda: present, guards.reload, retune, lambda: [1])


async def test_every_card_that_is_there_is_asked(
    cards: dict[int, ThermalPeer], tmp_path: Path
) -> None:
    answer = await asked(tmp_path, 0, 1)
    assert answer.applied == [
        *("guard", "placement", "gateway", "thermal@0", "thermal@1", "tuning")
    ]
    assert answer.is_complete
    assert answer.restart == [1]
    assert [peer.done for peer in cards.values()] == [[{"request": "reload"}]] * 2


async def test_a_card_that_keeps_its_thresholds_says_why_and_no_other_does(
    cards: dict[int, ThermalPeer], tmp_path: Path
) -> None:
    cards[1].refusal = ControlError("InvalidArgument", REFUSAL)
    answer = await asked(tmp_path, 0, 1)
    assert answer.kept == {"thermal@1": REFUSAL}
    assert answer.applied == ["guard", "placement", "gateway", "thermal@0", "tuning"]


async def test_a_dead_guard_and_a_failed_plan_are_named_and_hinder_nobody(
    cards: dict[int, ThermalPeer], tmp_path: Path
) -> None:
    answer = await asked(tmp_path, 1, 7, plan_fails=True)
    assert answer.applied == ["guard", "gateway", "thermal@1", "tuning"]
    assert answer.kept.keys() == {"placement", "thermal@7"}
    assert "thermal-7.sock: No such file" in answer.kept["thermal@7"]
    assert cards[0].done == []


async def test_a_host_that_could_not_be_tuned_says_why(
    cards: dict[int, ThermalPeer], tmp_path: Path
) -> None:
    answer = await asked(tmp_path, 0, tuning_fails="tuned refuses: no")
    assert answer.kept == {"tuning": "tuned refuses: no"}


async def test_a_configuration_that_can_not_be_written_changes_nothing(
    cards: dict[int, ThermalPeer], tmp_path: Path
) -> None:
    tmp_path.joinpath("accepted.json").mkdir()
    answer = await asked(tmp_path, 0, 1)
    assert not answer.is_complete
    assert answer.applied == []
    assert "Is a directory" in answer.problems[0]
    assert [peer.done for peer in cards.values()] == [[], []]
