# SPDX-License-Identifier: Apache-2.0
"""The last events of the service, as its status shows them."""

import logging
from collections.abc import Iterator

import pytest

from gpuwarden.guard.recent import KEPT_EVENTS, LONGEST_CHARACTERS, Recent
from gpuwarden.systemd.events import Event, follow, tell, unfollow
from gpuwarden.values import ThermalState
from tests.unit.cli.samples import gpu, guard, happened


@pytest.fixture
def recent() -> Iterator[Recent]:
    recent = Recent()
    follow(recent.told)
    yield recent
    unfollow(recent.told)


def messages(recent: Recent) -> list[str]:
    return [each.message for each in recent.added_to(None, guard()).events]


def test_what_is_told_to_the_journal_is_kept_with_its_level(recent: Recent) -> None:
    tell(Event.CONFIGURATION_ACCEPTED, "configuration accepted")
    tell(Event.CONFIGURATION_REFUSED, "configuration: x", logging.ERROR, REASON="x")
    accepted, refused = recent.added_to(None, guard()).events
    assert (accepted.event, accepted.level) == ("configuration-accepted", "info")
    assert (refused.message, refused.level) == ("configuration: x", "error")
    assert refused.unix_microseconds >= accepted.unix_microseconds > 0


def test_what_the_log_level_keeps_out_of_the_journal_is_kept(
    recent: Recent, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        tell(Event.CONFIGURATION_ACCEPTED, "configuration accepted")
    assert caplog.records == []
    assert messages(recent) == ["configuration accepted"]


def test_the_last_twenty_are_kept(recent: Recent) -> None:
    for number in range(KEPT_EVENTS + 5):
        tell(Event.CONFIGURATION_ACCEPTED, f"{number}")
    assert messages(recent) == [str(number) for number in range(5, KEPT_EVENTS + 5)]


def test_those_of_a_former_guard_come_first(recent: Recent) -> None:
    former = Recent(guard(events=[happened(60, "of the former one")]))
    follow(former.told)
    tell(Event.CONFIGURATION_ACCEPTED, "of this one")
    unfollow(former.told)
    assert messages(former) == ["of the former one", "of this one"]


def test_a_card_that_changes_its_state_is_an_event() -> None:
    recent = Recent()
    hot = gpu(0, state=ThermalState.CRITICAL, reason="91 C")
    new = recent.added_to(guard(gpus=[gpu(0), gpu(1)]), guard(gpus=[hot, gpu(1)]))
    (event,) = new.events
    assert (event.event, event.message, event.level) == (
        "thermal-state",
        "GPU 0: normal -> critical (91 C)",
        "error",
    )
    assert recent.added_to(new, new).events == new.events


def test_a_book_is_cut_and_nothing_repaints_the_terminal(recent: Recent) -> None:
    tell(Event.CONFIGURATION_ACCEPTED, "\x1b[2J" + "a" * 10000)
    (message,) = messages(recent)
    assert message.isprintable()
    assert len(message) == LONGEST_CHARACTERS
