# SPDX-License-Identifier: Apache-2.0
"""What the journal is told, field by field, and what is kept of it."""

import logging
from typing import Any

import pytest

from gpuwarden.nvml.limits import CardLimits
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.chronicle import KEPT_EVENTS, Chronicle
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.observation import Trouble
from gpuwarden.thermal.thresholds import thresholds_of
from gpuwarden.thermal.view import View, judged, take
from gpuwarden.values import ThermalState
from tests.unit.thermal.readings import CARD, THRESHOLDS, judgement, not_seen, view_of

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL
BLIND, LOST, RELEASED = ThermalState.BLIND, ThermalState.LOST, ThermalState.RELEASED


@pytest.fixture
def chronicle(caplog: pytest.LogCaptureFixture) -> Chronicle:
    caplog.set_level(logging.INFO)
    return Chronicle(0)


def fields(record: logging.LogRecord) -> dict[str, str]:
    found: dict[str, str] = getattr(record, "fields", {})
    return found


def labels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [fields(record)["GPUWARDEN_EVENT"] for record in caplog.records]


def changed(view: View, state: ThermalState, reason: str = "", **settings: Any) -> View:
    return judged(view, judgement(state, reason, **settings), 2)


def test_a_transition_carries_every_field_of_the_contract(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    before = view_of(80)
    chronicle.changed(before, changed(before, ALERT, "die 80 C, alert is 78 C"))
    (told,) = caplog.records
    assert told.getMessage() == "GPU 0: normal -> alert (die 80 C, alert is 78 C)"
    assert fields(told) == {
        "MESSAGE_ID": Event.THERMAL_STATE.message_id,
        "GPUWARDEN_EVENT": "thermal-state",
        "GPU": "0",
        "GPU_UUID": CARD.uuid,
        "TEMPERATURE_CELSIUS": "80",
        "POWER_LIMIT_WATTS": "350",
        "STATE_OLD": "normal",
        "STATE_NEW": "alert",
        "REASON": "die 80 C, alert is 78 C",
    }


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (ALERT, logging.WARNING),
        (CRITICAL, logging.ERROR),
        (ThermalState.RECOVERING, logging.INFO),
        (RELEASED, logging.WARNING),
    ],
)
def test_the_hotter_the_louder(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture, state: ThermalState, level: int
) -> None:
    before = view_of(80)
    chronicle.changed(before, changed(before, state))
    assert [record.levelno for record in caplog.records] == [level]


def test_another_reason_for_the_same_state_is_no_event(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    before = view_of(80, ALERT, "die 80 C")
    chronicle.changed(before, changed(before, ALERT, "die 81 C"))
    assert caplog.records == []


def test_a_sensor_lost_and_regained_is_told_once_each(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    sighted = view_of(50)
    blind = changed(sighted, BLIND, "no answer for 3 s")
    chronicle.changed(sighted, blind)
    later = changed(blind, BLIND, "no answer for 4 s")
    chronicle.changed(blind, later)
    lost = changed(later, LOST, "fell off")
    chronicle.changed(later, lost)
    chronicle.changed(lost, view_of(50))
    assert labels(caplog) == [
        "thermal-state",
        "sensor-lost",
        "thermal-state",
        "thermal-state",
        "sensor-regained",
    ]
    assert fields(caplog.records[1])["REASON"] == "no answer for 3 s"
    assert caplog.records[1].levelno == logging.ERROR
    assert "TEMPERATURE_CELSIUS" not in fields(caplog.records[1])


def test_a_guard_that_has_just_been_started_has_lost_nothing(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    chronicle.changed(View(0, 0.0, 0), view_of(50))
    assert labels(caplog) == ["thermal-state"]


def test_a_card_that_is_blind_from_the_start_is_told(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    start = View(0, 0.0, 0)
    blind = changed(take(start, not_seen(Trouble.SENSOR), 0.1), BLIND, "no sensor")
    chronicle.changed(start, blind)
    chronicle.changed(blind, view_of(50))
    assert labels(caplog) == ["sensor-lost", "thermal-state", "sensor-regained"]


def test_a_released_card_has_lost_no_sensor(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    before = view_of(50)
    released = changed(before, RELEASED, "released until noon")
    chronicle.changed(before, released)
    chronicle.changed(released, view_of(50))
    assert labels(caplog) == ["thermal-state", "thermal-state"]


def test_workers_that_must_stop_are_told_of_once(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    before = view_of(93, CRITICAL, "die 93 C")
    must_stop = changed(before, CRITICAL, "die 93 C", stop_requested=True)
    chronicle.changed(before, must_stop)
    chronicle.changed(must_stop, must_stop)
    (told,) = caplog.records
    assert fields(told)["MESSAGE_ID"] == Event.STOP_REQUESTED.message_id
    assert told.getMessage() == "GPU 0: cooling is not enough: its workers must stop"


def test_what_the_drivers_thread_has_brought_is_told_as_it_is(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    told_fields = {"GPU": "0", "GPU_UUID": "GPU-1", "POWER_LIMIT_WATTS": "300"}
    text = "GPU 0: power limit 350 -> 300 W"
    chronicle.happened(Happening(Event.THERMAL_WRITE, text, logging.WARNING, told_fields))
    (told,) = caplog.records
    assert (told.getMessage(), told.levelno) == (text, logging.WARNING)
    assert fields(told).items() >= told_fields.items()
    assert fields(told)["GPUWARDEN_EVENT"] == "thermal-write"


def test_thresholds_are_told_with_what_the_card_does_not_say(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    chronicle.thresholds(view_of(50), thresholds_of(CardLimits(87, 89, 95)), "")
    assert caplog.messages == [
        "GPU 0: alert 78 C, critical 85 C, safe 72 C; "
        "the card names no limit for its memory's temperature"
    ]


def test_refused_thresholds_are_told_with_those_that_hold(
    chronicle: Chronicle, caplog: pytest.LogCaptureFixture
) -> None:
    chronicle.thresholds(view_of(50), THRESHOLDS, "alert_celsius 90 is not below 85")
    assert labels(caplog) == ["thermal-thresholds-refused", "thermal-thresholds"]
    assert caplog.records[0].levelno == logging.ERROR
    assert "alert_celsius 90 is not below 85" in caplog.messages[0]
    assert fields(caplog.records[0])["REASON"] == "alert_celsius 90 is not below 85"


def test_the_last_events_are_kept_oldest_first(chronicle: Chronicle) -> None:
    for number in range(KEPT_EVENTS + 5):
        told_fields = {"GPU": "0", "GPU_UUID": "GPU-0", "XID": str(number)}
        chronicle.happened(Happening(Event.XID, f"GPU 0: XID {number}", fields=told_fields))
    kept = list(chronicle.events)
    assert len(kept) == KEPT_EVENTS
    assert [kept[0].message, kept[-1].message] == ["GPU 0: XID 5", f"GPU 0: XID {KEPT_EVENTS + 4}"]
    assert kept[0].event == "xid"
    assert kept[0].unix_microseconds <= kept[-1].unix_microseconds
