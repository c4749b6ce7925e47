# SPDX-License-Identifier: Apache-2.0
"""Overrides and releases: towards cooler only, for a bounded time, across a restart."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.control.lease_store import LeaseStore
from gpuwarden.thermal.decision import UNTOUCHED, Judgement, Settings
from gpuwarden.thermal.lease import SEVERITY, overridden, released
from gpuwarden.values import ThermalState
from tests.unit.thermal.leases import UNTIL, UNTIL_UNIX_MICROSECONDS, lease
from tests.unit.thermal.readings import AUTHORITY, judgement

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL

settings_of_policies = st.builds(
    Settings,
    power_limit_watts=st.none() | st.floats(100, 350),
    sm_clock_mhz=st.none() | st.integers(300, 1800),
    memory_clock_mhz=st.none() | st.integers(400, 3000),
    batch_limit=st.none() | st.integers(1, 8),
    dispatch_duty=st.floats(0.05, 1.0),
    paused=st.booleans(),
    stop_requested=st.booleans(),
)
judgements = st.builds(
    Judgement, st.sampled_from(ThermalState), st.sampled_from(["", "why"]), settings_of_policies
)


def test_an_override_cools_a_cool_card_and_shows_in_the_reason() -> None:
    forced = overridden(judgement(NORMAL), lease("alert"), AUTHORITY)
    assert (forced.state, forced.reason) == (ALERT, f"override: alert until {UNTIL}")
    assert forced.settings.power_limit_watts == pytest.approx(245)
    assert (forced.settings.batch_limit, forced.settings.paused) == (1, False)


def test_an_override_to_critical_pauses_admission_and_stops_no_worker() -> None:
    settings = overridden(judgement(NORMAL), lease("critical"), AUTHORITY).settings
    assert (settings.power_limit_watts, settings.sm_clock_mhz) == (100, 300)
    assert (settings.paused, settings.stop_requested) == (True, False)


def test_an_override_never_makes_a_hot_card_less_cool() -> None:
    hot = judgement(CRITICAL, "die 90 C", power_limit_watts=100, paused=True, stop_requested=True)
    forced = overridden(hot, lease("alert"), AUTHORITY)
    assert forced.state is CRITICAL
    assert forced.reason == f"die 90 C; override: alert until {UNTIL}"
    assert forced.settings.power_limit_watts == 100
    assert forced.settings.stop_requested


def test_a_blind_card_stays_blind_under_an_override() -> None:
    forced = overridden(judgement(ThermalState.BLIND, "why"), lease("critical"), AUTHORITY)
    assert forced.state is ThermalState.BLIND
    assert forced.settings.paused


def test_without_one_nothing_changes() -> None:
    assert overridden(judgement(NORMAL), None, AUTHORITY) == Judgement(NORMAL, "", UNTOUCHED)


@given(judgements, st.sampled_from(["alert", "critical"]))
def test_nothing_can_be_overridden_towards_hotter(own: Judgement, state: str) -> None:
    forced = overridden(own, lease("alert" if state == "alert" else "critical"), AUTHORITY)
    mine, theirs = own.settings, forced.settings
    for before, after in (
        (mine.power_limit_watts, theirs.power_limit_watts),
        (mine.sm_clock_mhz, theirs.sm_clock_mhz),
        (mine.memory_clock_mhz, theirs.memory_clock_mhz),
        (mine.batch_limit, theirs.batch_limit),
    ):
        assert before is None or (after is not None and after <= before)
    assert theirs.dispatch_duty <= mine.dispatch_duty
    assert theirs.paused >= mine.paused
    assert theirs.stop_requested == mine.stop_requested
    if own.state in SEVERITY:
        assert SEVERITY.index(forced.state) >= SEVERITY.index(own.state)
    else:
        assert forced.state is own.state


def test_a_released_card_gets_no_work() -> None:
    let_go = released(lease("released"))
    assert (let_go.state, let_go.reason) == (ThermalState.RELEASED, f"released until {UNTIL}")
    assert let_go.settings.paused


def test_a_lease_ends_by_itself() -> None:
    runs = lease("alert", seconds=60)
    assert runs.runs(runs.until_boottime_nanoseconds - 1)
    assert not runs.runs(runs.until_boottime_nanoseconds)
    assert runs.shown.until_unix_microseconds == UNTIL_UNIX_MICROSECONDS


def test_a_lease_outlives_its_guard(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "0.lease.json")
    assert store.load() is None
    asked = lease("critical")
    store.save(asked)
    assert LeaseStore(store.path).load() == asked
    store.clear()
    assert not store.path.exists()
    store.clear()


def test_one_that_has_ended_meanwhile_is_forgotten(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "0.lease.json")
    store.save(lease("critical", seconds=-1))
    assert store.load() is None
    assert not store.path.exists()


def test_one_of_another_boot_is_forgotten(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "0.lease.json")
    store.save(lease("released", boot="another"))
    assert store.load() is None
    assert not store.path.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: json.dumps({**json.loads(text), "state": "normal"}),
        lambda text: json.dumps({**json.loads(text), "hotter": True}),
        lambda text: json.dumps({**json.loads(text), "schema_version": 2}),
    ],
)
def test_a_torn_or_foreign_file_is_said_and_counts_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: object
) -> None:
    assert callable(change)
    store = LeaseStore(tmp_path / "0.lease.json")
    store.save(lease("critical"))
    store.path.write_text(change(store.path.read_text()))
    assert store.load() is None
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert f"{store.path} can't be read, no override runs" in told.getMessage()


def test_a_folder_in_its_place_is_said_and_counts_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LeaseStore(tmp_path)
    assert store.load() is None
    store.clear()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_one_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LeaseStore(tmp_path / "missing" / "0.lease.json").save(lease("alert"))


def test_only_root_may_read_it(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "0.lease.json")
    store.save(lease("alert"))
    assert store.path.stat().st_mode & 0o777 == 0o600
