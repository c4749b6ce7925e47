# SPDX-License-Identifier: Apache-2.0
"""The snapshot and the line for systemctl."""

from gpuwarden.thermal.observation import Trouble
from gpuwarden.thermal.publication import CardFacts, status_line, thermal_data
from gpuwarden.thermal.view import View, judged, take
from gpuwarden.values import ThermalState
from tests.unit.thermal.readings import CARD, THRESHOLDS, judgement, not_seen, seen, view_of

FACTS = CardFacts(700.0, 990, {"power-limit": "", "memory-clock-lock": "turned off"})


def test_all_that_was_seen_is_published() -> None:
    data = thermal_data(view_of(71), FACTS, THRESHOLDS)
    assert (data.index, data.uuid, data.pci_address, data.numa_node) == (
        0,
        CARD.uuid,
        CARD.pci_address,
        1,
    )
    assert (data.temperature_celsius, data.memory_temperature_celsius) == (71, 40)
    assert (data.power_watts, data.power_limit_watts) == (300, 350)
    assert (data.vram_used_bytes, data.vram_total_bytes) == (1, 2)
    assert (data.alert_celsius, data.critical_celsius, data.safe_celsius) == (78, 85, 72)
    assert data.clock_event_reasons == ["idle"]
    assert data.recovery_action == "none"


def test_what_the_card_has_of_ours_and_what_it_lacks_is_published() -> None:
    data = thermal_data(view_of(71), FACTS, THRESHOLDS)
    assert (data.original_power_limit_watts, data.sm_clock_lock_mhz) == (700, 990)
    assert data.actuators == {"power-limit": "", "memory-clock-lock": "turned off"}


def test_what_the_gateway_and_the_guard_must_do_is_published() -> None:
    cool = thermal_data(view_of(50), FACTS, THRESHOLDS)
    assert (cool.batch_limit, cool.dispatch_duty) == (None, 1.0)
    assert (cool.admission, cool.stop_requested) == ("open", False)
    wish = judgement(
        ThermalState.CRITICAL,
        "die 90 C",
        batch_limit=1,
        dispatch_duty=0.25,
        paused=True,
        stop_requested=True,
    )
    hot = thermal_data(judged(view_of(90), wish, 2), FACTS, THRESHOLDS)
    assert (hot.batch_limit, hot.dispatch_duty) == (1, 0.25)
    assert (hot.admission, hot.stop_requested) == ("paused", True)
    assert (hot.state, hot.reason, hot.since) == (ThermalState.CRITICAL, "die 90 C", 2)


def test_before_the_first_look_nothing_is_claimed() -> None:
    data = thermal_data(View(3, 0.0, 7), CardFacts(), None)
    assert (data.index, data.uuid, data.since) == (3, "", 7)
    assert (data.state, data.reason, data.batch_limit) == (ThermalState.BLIND, "starting", 1)
    assert data.temperature_celsius is None
    assert data.alert_celsius is None
    assert data.original_power_limit_watts is None


def test_a_blind_card_has_no_reading_but_its_thresholds() -> None:
    view = take(view_of(71), not_seen(Trouble.SENSOR), 9.0)
    data = thermal_data(judged(view, judgement(ThermalState.BLIND, "why"), 2), FACTS, THRESHOLDS)
    assert data.temperature_celsius is None
    assert data.power_limit_watts is None
    assert (data.reason, data.alert_celsius) == ("why", 78)


def test_a_note_is_said_with_every_state() -> None:
    data = thermal_data(view_of(50), FACTS, THRESHOLDS, "the defaults hold")
    assert data.reason == "the defaults hold"
    view = view_of(80, ThermalState.ALERT, "die 80 C, alert is 78 C")
    data = thermal_data(view, FACTS, THRESHOLDS, "the defaults hold")
    assert data.reason == "die 80 C, alert is 78 C; the defaults hold"


def test_the_status_line_can_be_read_by_a_human() -> None:
    data = thermal_data(view_of(71), FACTS, THRESHOLDS)
    assert status_line(data, simulated=False) == "GPU 0 71 C, 300 of 350 W, normal"
    lost = judged(view_of(71), judgement(ThermalState.LOST, "fell off the bus"), 2)
    line = status_line(thermal_data(lost, FACTS, THRESHOLDS), simulated=True)
    assert line == "SIMULATED GPU 0 lost: fell off the bus"


def test_unknown_watts_are_a_question_mark() -> None:
    data = thermal_data(view_of(71), FACTS, THRESHOLDS)
    dim = data.model_copy(update={"power_watts": None, "power_limit_watts": None})
    assert status_line(dim, simulated=False) == "GPU 0 71 C, ? of ? W, normal"


def test_a_card_without_a_memory_sensor_says_null() -> None:
    view = take(View(0, 0.0, 0), seen(50, memory=None), 1.0)
    view = judged(view, judgement(ThermalState.NORMAL), 1)
    assert thermal_data(view, FACTS, THRESHOLDS).memory_temperature_celsius is None
