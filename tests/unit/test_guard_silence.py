# SPDX-License-Identifier: Apache-2.0
# A thermal guard that says nothing: said loudly and once, and not while it only starts.

import logging

import pytest

from gpuwarden.guard.silence import START_SECONDS, Silence
from tests.machines import card

CARDS = (card(0), card(1))
WORKERS = {0: [0], 1: [2, 1]}


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, int]]:
    """Event, card and level of what was told since the last look."""
    fields = [(record.__dict__["fields"], record.levelno) for record in caplog.records]
    found = [(told["GPUWARDEN_EVENT"], told["GPU"], level) for told, level in fields]
    caplog.clear()
    return found


def test_a_guard_that_falls_silent_is_an_error_once_and_its_return_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    silence = Silence(0)
    silence.look(CARDS, {0, 1}, WORKERS, 1)
    assert told(caplog) == []
    silence.look(CARDS, {0}, WORKERS, 5)
    assert "systemctl start medgemma-thermal@1.service" in caplog.text
    assert "one request at a time for worker 1 and worker 2" in caplog.text
    assert told(caplog) == [("thermal-guard-silent", "1", logging.ERROR)]
    silence.look(CARDS, {0}, WORKERS, 6)
    assert told(caplog) == []
    silence.look(CARDS, {0, 1}, WORKERS, 7)
    assert told(caplog) == [("thermal-guard-back", "1", logging.INFO)]


def test_one_that_never_spoke_has_time_to_start(caplog: pytest.LogCaptureFixture) -> None:
    silence = Silence(100)
    silence.look(CARDS, {0}, {}, 100 + START_SECONDS - 1)
    assert told(caplog) == []
    silence.look(CARDS, {0}, {}, 100 + START_SECONDS)
    assert "request" not in caplog.text
    assert told(caplog) == [("thermal-guard-silent", "1", logging.ERROR)]


def test_a_card_that_is_gone_needs_no_guard(caplog: pytest.LogCaptureFixture) -> None:
    silence = Silence(0)
    silence.look((card(0, present=False),), set(), {}, START_SECONDS + 1)
    assert told(caplog) == []
