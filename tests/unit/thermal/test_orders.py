# SPDX-License-Identifier: Apache-2.0
"""What is asked of a thermal guard, and what it answers."""

import inspect
import time
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.config import Configuration, ConfigurationError, Problem
from gpuwarden.control.requests import (
    HISTORY_ROWS_LIMIT,
    HistoryAnswer,
    Override,
    ThermalStatusAnswer,
)
from gpuwarden.control.snapshot import boottime_nanoseconds
from gpuwarden.control.socket import RECORD_LIMIT_BYTES, ControlError
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.chronicle import KEPT_EVENTS
from gpuwarden.thermal.decision import Reading
from gpuwarden.thermal.guard import ThermalGuard
from gpuwarden.thermal.orders import Orders
from gpuwarden.thermal.rules import rules_for
from gpuwarden.values import ThermalState
from tests.unit.thermal.guarding import Listener, StandInCard, guarding, make_guard
from tests.unit.thermal.leases import UNTIL_UNIX_MICROSECONDS, lease
from tests.unit.thermal.readings import AUTHORITY, FRESH, H200

DAY_SECONDS = 86_400


class Files:
    """The configuration as the node has accepted it."""

    def __init__(self) -> None:
        self.configuration = Configuration()
        self.problem = ""

    def load(self) -> Configuration:
        if self.problem:
            file = Path("gpuwarden.toml")
            raise ConfigurationError([Problem(file, 3, "thermal", self.problem, "a number")])
        return self.configuration

    def say(self, **thermal: Any) -> None:
        self.configuration = Configuration.model_validate({"thermal": thermal})


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def guard(tmp_path: Path, card: StandInCard, files: Files) -> ThermalGuard:
    """One that has seen its card."""
    rules = rules_for(files.configuration, "GPU-1")
    made = make_guard(tmp_path, card, rules, ear=Listener())
    made.mind.learn(H200, AUTHORITY, FRESH)
    return made


@pytest.fixture
def orders(guard: ThermalGuard, files: Files) -> Orders:
    return Orders(guard, files.load)


async def ask(orders: Orders, name: str, **fields: Any) -> dict[str, Any]:
    answer = orders.handlers[name]({"version": 1, "request": name, **fields})
    return await answer if inspect.isawaitable(answer) else answer


async def refused(orders: Orders, name: str, **fields: Any) -> ControlError:
    with pytest.raises(ControlError) as raised:
        await ask(orders, name, **fields)
    return raised.value


async def test_status_is_all_that_is_known(orders: Orders, guard: ThermalGuard) -> None:
    guard.chronicle.tell(guard.view, Event.XID, "its driver reports XID 79", XID=79)
    status = ThermalStatusAnswer.model_validate(await ask(orders, "status"))
    assert (status.policy, status.override) == ("regulated", None)
    assert (status.memory_alert_celsius, status.memory_critical_celsius) == (88, 95)
    assert status.data == guard.data()
    assert [event.message for event in status.events] == ["GPU 0: its driver reports XID 79"]


async def test_before_the_card_was_seen_status_has_no_thresholds(
    tmp_path: Path, card: StandInCard, files: Files
) -> None:
    fresh = Orders(make_guard(tmp_path, card, ear=Listener()), files.load)
    status = ThermalStatusAnswer.model_validate(await ask(fresh, "status"))
    assert (status.memory_alert_celsius, status.data.alert_celsius) == (None, None)


async def test_a_full_chronicle_fits_a_record(orders: Orders, guard: ThermalGuard) -> None:
    for _ in range(KEPT_EVENTS):
        guard.chronicle.tell(guard.view, Event.THERMAL_ORIGINALS_SET_ASIDE, "x" * 600)
    answer = ThermalStatusAnswer.model_validate(await ask(orders, "status"))
    assert len(answer.model_dump_json()) < RECORD_LIMIT_BYTES


async def test_history_comes_in_pages(orders: Orders, guard: ThermalGuard) -> None:
    for second in range(1, HISTORY_ROWS_LIMIT + 11):
        guard.history.see(Reading(0.0, 50.0))
        guard.history.close_second(second, None, ThermalState.NORMAL)
    first = HistoryAnswer.model_validate(await ask(orders, "history"))
    assert (len(first.rows), first.more) == (HISTORY_ROWS_LIMIT, True)
    last = first.rows[-1].unix_microseconds
    rest = await ask(orders, "history", after_unix_microseconds=last)
    second_page = HistoryAnswer.model_validate(rest)
    assert (len(second_page.rows), second_page.more) == (10, False)


async def test_an_override_answers_with_its_end_and_is_kept(
    orders: Orders, guard: ThermalGuard, tmp_path: Path
) -> None:
    before = (time.time_ns() // 1000, boottime_nanoseconds())
    answer = Override.model_validate(await ask(orders, "override", state="alert", seconds=60))
    after = (time.time_ns() // 1000, boottime_nanoseconds())
    assert answer.state == "alert"
    assert before[0] <= answer.until_unix_microseconds - 60 * 10**6 <= after[0]
    assert guard.lease is not None
    assert before[1] <= guard.lease.until_boottime_nanoseconds - 60 * 10**9 <= after[1]
    assert (tmp_path / "0.lease.json").exists()
    assert (await ask(orders, "status"))["override"] == answer.model_dump()


async def test_a_release_shows_in_the_status_while_it_runs(
    orders: Orders, guard: ThermalGuard
) -> None:
    await ask(orders, "release", seconds=DAY_SECONDS)
    status = ThermalStatusAnswer.model_validate(await ask(orders, "status"))
    assert status.override is not None
    assert status.override.state == "released"


async def test_clearing_ends_what_runs_and_is_no_error_where_nothing_does(
    orders: Orders, guard: ThermalGuard, tmp_path: Path
) -> None:
    assert await ask(orders, "clear-override") == {}
    await ask(orders, "override", state="critical", seconds=60)
    assert await ask(orders, "clear-override") == {}
    assert guard.lease is None
    assert not (tmp_path / "0.lease.json").exists()


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("override", {"state": "normal", "seconds": 60}, "state: Input should be 'alert' or"),
        ("override", {"state": "alert", "seconds": 0}, "seconds: Input should be greater"),
        ("override", {"state": "alert", "seconds": DAY_SECONDS + 1}, "seconds: Input should be le"),
        ("override", {"state": "alert", "seconds": "60"}, "seconds: Input should be a valid int"),
        ("override", {"state": "alert"}, "seconds: Field required"),
        ("override", {"state": "alert", "seconds": 6, "limit": 900}, "limit: Extra inputs are not"),
        ("release", {"seconds": -1}, "seconds: Input should be greater"),
        ("history", {"after_unix_microseconds": -1}, "after_unix_microseconds: Input should be"),
    ],
)
async def test_a_bad_request_is_refused_by_field_and_changes_nothing(
    orders: Orders, guard: ThermalGuard, name: str, fields: dict[str, Any], words: str
) -> None:
    error = await refused(orders, name, **fields)
    assert error.kind == "InvalidArgument"
    assert words in str(error)
    assert guard.lease is None


async def test_what_cannot_be_kept_does_not_begin(
    orders: Orders, guard: ThermalGuard, tmp_path: Path
) -> None:
    (tmp_path / "0.lease.json").mkdir()
    error = await refused(orders, "override", state="alert", seconds=60)
    assert error.kind == "Failed"
    assert "it can't be kept: " in str(error)
    assert guard.lease is None


async def test_a_reload_is_followed(
    orders: Orders, guard: ThermalGuard, card: StandInCard, files: Files
) -> None:
    files.say(alert_celsius=60.0, policy="stepped", sample_hertz=2.0, memory_clock_lock=True)
    assert await ask(orders, "reload") == {}
    assert guard.mind.rules.wishes.alert_celsius == 60
    assert (guard.mind.policy_name, guard.sample_seconds) == ("stepped", 0.5)
    assert card.options == Options(
        memory_clock_lock=True, max_batch=files.configuration.workers.max_batch
    )


async def test_a_reload_minds_what_is_different_for_this_card(
    orders: Orders, guard: ThermalGuard, files: Files, card: StandInCard, tmp_path: Path
) -> None:
    uuid = "GPU-00000000-0000-0000-0000-000000000001"
    files.say(alert_celsius=60.0, cards={uuid: {"alert_celsius": 50.0}})
    assert rules_for(files.configuration, uuid).wishes.alert_celsius == 50
    assert rules_for(files.configuration, "GPU-other").wishes.alert_celsius == 60


async def test_a_reload_with_bad_files_keeps_what_was(
    orders: Orders, guard: ThermalGuard, files: Files
) -> None:
    before, files.problem = guard.mind.rules, "it is no number"
    error = await refused(orders, "reload")
    assert error.kind == "Failed"
    assert "it is no number" in str(error)
    assert guard.mind.rules == before


async def test_a_reload_that_does_not_suit_the_card_names_its_figures_and_keeps_what_was(
    orders: Orders, guard: ThermalGuard, card: StandInCard, files: Files
) -> None:
    before = guard.mind.rules
    files.say(alert_celsius=80.0, critical_celsius=92.0)
    error = await refused(orders, "reload")
    assert error.kind == "InvalidArgument"
    assert "critical_celsius 92 is above 90, 5 C below the card's shutdown" in str(error)
    assert "maximum operating 87 C, slowdown 89 C, shutdown 95 C" in str(error)
    assert guard.mind.rules == before
    assert card.options is None


async def test_a_released_card_answers_with_the_state_and_its_end(
    tmp_path: Path, card: StandInCard, files: Files
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(lambda data: data.state is ThermalState.NORMAL)
        running.guard.lend(lease("released"))
        await running.until(lambda data: data.state is ThermalState.RELEASED)
        answer = await ask(Orders(running.guard, files.load), "status")
    status = ThermalStatusAnswer.model_validate(answer)
    assert status.data.state is ThermalState.RELEASED
    assert status.override == Override(
        state="released", until_unix_microseconds=UNTIL_UNIX_MICROSECONDS
    )
