# SPDX-License-Identifier: Apache-2.0
import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.cli.proof_conditions import hindrance
from gpuwarden.control.requests import Override, ThermalStatusAnswer
from gpuwarden.values import ThermalState
from tests.integration.cli.thermal_guard import ThermalGuard, guarding, publish, rows
from tests.unit.cli.samples import gpu


class TestHindrance:
    """A running guard forbids it, unless it has let go for long enough."""

    @pytest.fixture(autouse=True)
    def node_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "run").mkdir()
        monkeypatch.setattr(names, "RUN_DIRECTORY", tmp_path / "run")
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        self.path = tmp_path / "bin" / "systemctl"
        self.systemctl("active")

    def systemctl(self, state: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho {state}\n")
        self.path.chmod(0o755)

    @pytest.mark.parametrize("state", ["inactive", "failed"])
    def test_a_guard_that_is_down_is_none(self, state: str) -> None:
        self.systemctl(state)
        assert hindrance(0) == ""

    @pytest.mark.parametrize("state", [each for each in ThermalState if each != "released"])
    def test_a_guard_at_work_is_one(self, state: ThermalState) -> None:
        publish(gpu(0, state=state))
        reason = hindrance(0)
        assert f"guards GPU 0 ({state})" in reason
        assert "gpuwarden thermal release 0 120" in reason

    def test_a_guard_that_says_nothing_is_one(self) -> None:
        assert "has not released the card" in hindrance(0)
        publish(gpu(0, state=ThermalState.RELEASED), valid_milliseconds=0)
        assert "has not said lately" in hindrance(0)
        publish(gpu(0, state=ThermalState.RELEASED))
        assert "for how long is unknown" in hindrance(0)

    def test_a_systemd_that_does_not_answer_is_one(self) -> None:
        self.path.write_text("#!/bin/sh\necho Failed to connect >&2; exit 1\n")
        assert "is unknown: systemctl show" in hindrance(0)

    @pytest.mark.parametrize(
        ("state", "seconds_left", "needed", "reason"),
        [
            ("released", 100, 60, ""),
            ("released", 30, 60, "ends in"),
            ("released", 30, 10, ""),
            ("alert", 100, 60, "is being taken back"),
        ],
    )
    async def test_a_released_card_must_stay_so_for_long_enough(
        self, state: Any, seconds_left: int, needed: float, reason: str
    ) -> None:
        until = int((time.time() + seconds_left) * 1e6)
        data = gpu(0, state=ThermalState.RELEASED)
        override = Override(state=state, until_unix_microseconds=until)
        status = ThermalStatusAnswer(data=data, policy="regulated", override=override)
        publish(data)
        async with guarding(ThermalGuard(status, rows(1))):
            found = await asyncio.to_thread(hindrance, 0, needed)
        assert (found == "") if not reason else (reason in found)
