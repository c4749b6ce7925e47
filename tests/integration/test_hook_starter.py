# SPDX-License-Identifier: Apache-2.0
"""The guard's side of hooks: what is started when a card's state changes, and what is said."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gpuwarden.config import load_configuration
from gpuwarden.config.thermal import HookSettings
from gpuwarden.control.states import ThermalData
from gpuwarden.guard.hook_starter import HookStarter
from gpuwarden.systemd.units import Systemd
from gpuwarden.values import ThermalState
from tests.integration import bus_states
from tests.integration.bus_peers import client
from tests.integration.hook_node import HookNode, Page, page
from tests.integration.private_bus import private_bus
from tests.integration.stand_in_systemd import POLICY, StandInSystemd, stand_in_systemd
from tests.waiting import wait_until

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL
KILLED = ["/bin/sh", "-c", "kill -9 $$"]


class Guard:
    """The guard's part, with cards whose states a test sets."""

    def __init__(self, node: HookNode, systemd: StandInSystemd, units: Systemd) -> None:
        self.node = node
        self.systemd = systemd
        self.units = units
        self.starter = HookStarter(units, hooks=self.hooks)
        self.cards: dict[int, ThermalData] = {}

    def hooks(self) -> tuple[HookSettings, ...]:
        return load_configuration(self.node.root / "gpuwarden.toml", None).thermal.hooks

    def see(self, state: ThermalState, gpu: int = 0) -> None:
        """The card's guard publishes a state, and the supervisor looks."""
        self.node.publish(state, gpu)
        self.cards[gpu] = bus_states.card(gpu, state=state)
        self.starter.follow(list(self.cards.values()))


@pytest.fixture
async def guard(tmp_path: Path) -> AsyncIterator[Guard]:
    node = HookNode(tmp_path)
    kill = tmp_path / "kill"

    def command_of(unit: str) -> list[str]:
        instance = unit.removeprefix("medgemma-hook@").removesuffix(".service")
        return KILLED if kill.exists() else node.command(instance)

    async with (
        private_bus([POLICY]) as bus,
        stand_in_systemd(bus, command_of) as systemd,
        client(bus) as connection,
    ):
        units = Systemd(connection)
        await units.subscribe(lambda: None)
        yield Guard(node, systemd, units)


@pytest.fixture
def gradio(guard: Guard) -> Iterator[Page]:
    with page() as running:
        guard.node.configure(
            "".join(
                f"[[thermal.hooks]]\non = ['{state}']\npost = '{running.url}?mode={mode}'\n"
                for state, mode in (("alert", "eco"), ("critical", "off"), ("normal", "normal"))
            )
        )
        yield running


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


def modes(gradio: Page) -> list[str]:
    return [path.rsplit("=", 1)[1] for path, _ in gradio.heard]


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "fields", {}).get("GPUWARDEN_EVENT") == "hook-failed"
    ]


async def test_a_page_goes_eco_while_the_card_is_hot(guard: Guard, gradio: Page) -> None:
    guard.see(NORMAL)
    guard.see(ALERT)
    guard.see(ALERT)
    await until(lambda: modes(gradio) == ["eco"])
    guard.see(NORMAL)
    await until(lambda: modes(gradio) == ["eco", "normal"])
    assert guard.systemd.started == ["medgemma-hook@0-0.service", "medgemma-hook@2-0.service"]


async def test_the_last_state_has_the_last_word_whatever_came_between(
    guard: Guard, gradio: Page
) -> None:
    gradio.gate.clear()
    guard.see(ALERT)
    await until(lambda: modes(gradio) == ["eco"])
    guard.see(CRITICAL)
    guard.see(NORMAL)
    gradio.gate.set()
    await until(lambda: modes(gradio) == ["eco", "normal"])


async def test_one_cards_slow_hook_keeps_no_other_card_waiting(guard: Guard, gradio: Page) -> None:
    gradio.gate.clear()
    guard.see(ALERT, gpu=0)
    guard.see(ALERT, gpu=1)
    await until(lambda: len(gradio.heard) == 2)
    assert {body["gpu"] for _, body in gradio.heard} == {0, 1}


async def test_a_guard_that_comes_back_tells_only_what_is_new(guard: Guard, gradio: Page) -> None:
    former = bus_states.state(gpus=[bus_states.card(0, state=ALERT), bus_states.card(1)])
    guard.starter = HookStarter(guard.units, former, guard.hooks)
    guard.see(ALERT, gpu=0)
    guard.see(ALERT, gpu=1)
    await until(lambda: modes(gradio) == ["eco"])
    assert guard.systemd.started == ["medgemma-hook@0-1.service"]


async def test_a_failure_is_told_once_by_whoever_knows_why(
    guard: Guard, gradio: Page, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gradio.status = 500
    guard.see(ALERT)
    await until(lambda: modes(gradio) == ["eco"])
    guard.see(NORMAL)
    await until(lambda: modes(gradio) == ["eco", "normal"])
    (guard.node.root / "kill").touch()
    guard.see(ALERT)
    await until(lambda: failures(caplog))
    guard.see(ALERT)
    assert failures(caplog) == ["thermal.hooks[0] for GPU 0 failed: killed by a signal"]
    assert len(guard.systemd.started) == 3
