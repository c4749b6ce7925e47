# SPDX-License-Identifier: Apache-2.0
"""When a timer was last due, by systemd's own reckoning."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpuwarden.systemd.calendar import CalendarError, elapses, last_elapse

DAY, NIGHT = "*-*-* 07:00:00", "*-*-* 19:00:00"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        ([DAY], "2026-11-25 07:00:00"),
        ([NIGHT], "2026-11-24 19:00:00"),
        ([DAY, "*-*-* 12:00:00"], "2026-11-25 12:00:00"),
        (["Mon *-*-* 07:00:00"], "2026-11-23 07:00:00"),
        (["*-01-01 07:00:00"], "2026-01-01 07:00:00"),
        (["*:0/15"], "2026-11-25 12:30:00"),
    ],
)
def test_the_last_time_that_it_was_due(expressions: list[str], expected: str) -> None:
    assert last_elapse(expressions, at("2026-11-25 12:30:00")) == at(expected)


def test_a_second_before_it_is_due_it_was_due_the_day_before() -> None:
    assert last_elapse([DAY], at("2026-11-25 06:59:59")) == at("2026-11-24 07:00:00")
    assert last_elapse([DAY], at("2026-11-25 07:00:00")) == at("2026-11-25 07:00:00")


def test_hours_are_the_hosts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert last_elapse([DAY], at("2026-11-25 11:30:00")) == at("2026-11-24 12:00:00")
    assert last_elapse([DAY], at("2026-11-25 12:00:00")) == at("2026-11-25 12:00:00")


def test_the_clock_that_is_set_back_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")  # on 25 October 2026 at 03:00, to 02:00
    assert last_elapse([DAY], at("2026-10-25 05:59:00")) == at("2026-10-24 05:00:00")
    assert last_elapse([DAY], at("2026-10-25 06:00:00")) == at("2026-10-25 06:00:00")


def test_a_timer_that_is_never_due_never_was() -> None:
    assert last_elapse([], 0.0) is None
    assert last_elapse(["2020-01-01"], at("2026-11-25 12:30:00")) is None


def test_an_expression_that_is_none_is_told() -> None:
    with pytest.raises(CalendarError, match="Failed to parse calendar specification 'soon'"):
        last_elapse(["soon"], 0.0)


def test_without_systemd_it_can_not_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CalendarError, match="No such file"):
        last_elapse([DAY], at("2026-11-25 12:30:00"))


def test_the_words_of_other_versions_are_understood() -> None:
    assert elapses("  Iteration #2: Thu 2026-11-26 07:00:00 UTC\n") == [at("2026-11-26 07:00:00")]
