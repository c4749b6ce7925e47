# SPDX-License-Identifier: Apache-2.0
"""The daemon's own clock and what it tells systemd."""

import asyncio
from pathlib import Path

import pytest

from gpuwarden.simulator import daemon as daemon_module
from gpuwarden.simulator.configuration import load_cards
from gpuwarden.simulator.daemon import Daemon
from tests.unit.thermal.guarding import Listener

SHIPPED_CARDS = Path(__file__).parents[2] / "packaging/simulator/cards.json"


class ReadyListener(Listener):
    """Takes down what systemd would be told, and lets a test wait for READY."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()

    def ready(self) -> None:
        self.heard.set()


async def test_its_watchdog_is_fed_while_requests_come_faster_than_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "STATUS_PERIOD_SECONDS", 0.01)
    ear = ReadyListener()
    daemon = Daemon(load_cards(SHIPPED_CARDS), tmp_path, 1.0, ear)
    running = asyncio.ensure_future(daemon.run())
    await ear.heard.wait()
    fed = ear.fed
    for _ in range(20):
        daemon.step_now()  # as each request does
        await asyncio.sleep(0.01)
    assert ear.fed > fed + 5
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
