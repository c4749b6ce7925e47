import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.thermal.observation import Observation, Trouble, implausible
from gpuwarden.thermal.view import View, age, status_line, take, thermal_data
from gpuwarden.values import ThermalState
from tests.unit.thermal.readings import CARD, not_seen, seen

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL
BLIND, LOST = ThermalState.BLIND, ThermalState.LOST


def after(*observations: Observation, period: float = 0.2) -> View:
    view = View(0, 0.0, 0)
    for number, observation in enumerate(observations, 1):
        view = take(view, observation, number * period, number)
    return view


def states(*celsius: float) -> list[ThermalState]:
    return [after(*map(seen, celsius[: count + 1])).state for count in range(len(celsius))]


def test_the_states_follow_the_cards_thresholds() -> None:
    assert states(40, 77, 78, 84, 85, 90) == [NORMAL, NORMAL, ALERT, ALERT, CRITICAL, CRITICAL]


def test_alert_ends_at_safe_and_not_before() -> None:
    assert states(78, 77, 73, 72, 77) == [ALERT, ALERT, ALERT, NORMAL, NORMAL]
    assert states(85, 84, 73, 72) == [CRITICAL, ALERT, ALERT, NORMAL]


def test_a_hot_memory_counts_as_a_hot_die_does() -> None:
    assert after(seen(50, memory=88)).state is ALERT
    view = after(seen(50, memory=95))
    assert view.state is CRITICAL
    assert view.reason == "memory 95 C, critical is 95 C"


def test_a_card_without_a_memory_sensor_is_judged_by_its_die() -> None:
    assert after(seen(50, memory=None)).state is NORMAL


def test_a_sensor_error_is_borne_for_three_seconds() -> None:
    view = after(seen(50))
    assert take(view, not_seen(Trouble.SENSOR), 3.1, 2).state is NORMAL
    blind = take(view, not_seen(Trouble.SENSOR, "unknown error"), 3.2, 3)
    assert (blind.state, blind.reason) == (BLIND, "unknown error")


def test_silence_of_three_seconds_is_blindness() -> None:
    view = after(seen(50))
    assert age(view, 3.1, 2).state is NORMAL
    blind = age(view, 3.3, 3)
    assert blind.state is BLIND
    assert blind.reason == "the driver has not answered for 3 s"
    assert thermal_data(blind).temperature_celsius is None


def test_a_driver_that_never_answered_is_starting_then_blind() -> None:
    view = View(0, 10.0, 0)
    assert age(view, 11.0, 1).reason == "starting"
    assert "not answered" in age(view, 13.0, 2).reason


def test_sight_comes_back_with_the_next_sample() -> None:
    blind = age(after(seen(50)), 60.0, 2)
    assert take(blind, seen(51), 60.2, 3).state is NORMAL


def test_a_lost_card_is_lost_at_once_and_until_seen() -> None:
    lost = after(seen(50), not_seen(Trouble.LOST, "fell off the bus"))
    assert (lost.state, lost.reason) == (LOST, "fell off the bus")
    assert age(lost, 100.0, 9).state is LOST
    assert take(lost, seen(50), 100.2, 10).state is NORMAL


@pytest.mark.parametrize("trouble", [Trouble.NO_DRIVER, Trouble.NO_PLAN])
def test_without_driver_or_plan_it_is_blind_and_says_why(trouble: Trouble) -> None:
    view = after(not_seen(trouble, "why"))
    assert (view.state, view.reason) == (BLIND, "why")


def test_since_is_the_moment_of_the_last_change() -> None:
    assert after(seen(50), seen(51), seen(80), seen(81)).since_unix_microseconds == 3


def test_all_that_was_seen_is_published() -> None:
    data = thermal_data(after(seen(71)))
    assert (data.uuid, data.pci_address, data.numa_node) == (CARD.uuid, CARD.pci_address, 1)
    assert (data.temperature_celsius, data.memory_temperature_celsius) == (71, 40)
    assert (data.power_watts, data.power_limit_watts) == (300, 350)
    assert (data.vram_used_bytes, data.vram_total_bytes) == (1, 2)
    assert (data.alert_celsius, data.critical_celsius, data.safe_celsius) == (78, 85, 72)
    assert data.clock_event_reasons == ["idle"]
    assert data.recovery_action == "none"
    assert set(data.actuators.values()) == {"not in this version: watching only"}


def test_the_status_line_can_be_read_by_a_human() -> None:
    line = status_line(thermal_data(after(seen(71))), simulated=False)
    assert line == "GPU 0 71 C, 300 of 350 W, normal (watching only)"
    line = status_line(thermal_data(after(not_seen(Trouble.LOST))), simulated=True)
    assert line == "SIMULATED GPU 0 lost (watching only): it is broken"


def test_a_note_is_said_with_every_state() -> None:
    data = thermal_data(after(seen(80)), "the configuration was refused")
    assert data.reason == "die 80 C, alert is 78 C; the configuration was refused"


def test_what_no_die_can_have_is_no_reading() -> None:
    assert implausible(45) == ""
    for reading in (None, 0, -5, 131, 255):
        assert implausible(reading)


observations = st.one_of(
    st.builds(seen, st.floats(1, 130), st.none() | st.floats(1, 130)),
    st.builds(not_seen, st.sampled_from(Trouble)),
)


@given(st.lists(observations, min_size=1, max_size=30), st.floats(0.01, 5))
def test_critical_heat_is_never_shown_as_less(seq: list[Observation], period: float) -> None:
    view = View(0, 0.0, 0)
    for number, observation in enumerate(seq, 1):
        view = take(view, observation, number * period, number)
        data = thermal_data(view)
        if data.temperature_celsius is not None and data.temperature_celsius >= 85:
            assert data.state is CRITICAL
        if data.state in (BLIND, LOST):
            assert data.temperature_celsius is None
            assert data.reason
