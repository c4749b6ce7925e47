# SPDX-License-Identifier: Apache-2.0
import math

from gpuwarden.bus.objects.changes import (
    ThermalChange,
    WorkerChange,
    changed_values,
    thermal_changes,
    worker_changes,
)
from gpuwarden.values import ThermalState, WorkerState
from tests.integration.bus_states import card, state, worker


def test_a_worker_that_changes_state_is_told_with_its_reason() -> None:
    new = state(workers=[worker(0), worker(1, state=WorkerState.GHOST, reason="context lost")])
    assert worker_changes(state(), new) == [
        WorkerChange(1, WorkerState.READY, WorkerState.GHOST, "context lost")
    ]


def test_a_worker_that_came_or_went_changed_no_state() -> None:
    assert worker_changes(state(workers=[]), state()) == []
    assert worker_changes(state(), state(workers=[])) == []


def test_a_card_that_changes_state_is_told_with_its_temperature() -> None:
    hot = card(1, state=ThermalState.ALERT, temperature_celsius=81.0, reason="above 80")
    assert thermal_changes(state(), state(gpus=[card(0), hot])) == [
        ThermalChange(1, ThermalState.NORMAL, ThermalState.ALERT, 81.0, "above 80")
    ]


def test_nan_to_nan_is_no_change() -> None:
    assert changed_values({"A": math.nan}, {"A": math.nan}, frozenset({"A"})) == {}


def test_only_the_names_asked_for_count() -> None:
    assert changed_values({"A": 1, "B": 1}, {"A": 2, "B": 2}, frozenset({"B"})) == {"B": 2}
