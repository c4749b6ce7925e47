# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.control.states import ThermalData, WorkerStatus
from gpuwarden.guard.heat import (
    CALM,
    CALM_SECONDS,
    FORGET_SECONDS,
    FREE,
    Hold,
    calm_seconds,
    next_hold,
    occupants,
)
from gpuwarden.values import ThermalState, WorkerState

LOOK_SECONDS = 1.0


def card(state: ThermalState, *, stop: bool = False) -> ThermalData:
    return ThermalData(
        index=0,
        uuid="GPU-0",
        name="A100",
        pci_address="",
        numa_node=0,
        since=1,
        state=state,
        stop_requested=stop,
    )


NORMAL = card(ThermalState.NORMAL)
TOO_HOT = card(ThermalState.CRITICAL, stop=True)

cards = st.one_of(st.none(), st.builds(card, st.sampled_from(ThermalState), stop=st.booleans()))


def after(hold: Hold, seen: ThermalData | None, seconds: float, start: float = 0.0) -> Hold:
    """The hold after looks at the same card each second, ``seconds`` long."""
    looks = int(seconds / LOOK_SECONDS) + 1
    for number in range(looks):
        hold = next_hold(hold, seen, start + number * LOOK_SECONDS)
    return hold


def test_a_card_is_held_from_the_look_at_which_it_asks() -> None:
    assert next_hold(FREE, card(ThermalState.CRITICAL), 0).held == ""
    assert next_hold(FREE, TOO_HOT, 0).held == "heat"


@pytest.mark.parametrize("state", sorted(CALM))
def test_it_is_free_after_it_was_calm_for_long_enough_and_no_sooner(state: ThermalState) -> None:
    hot = next_hold(FREE, TOO_HOT, 0)
    assert after(hot, card(state), CALM_SECONDS[0] - 1).held == "heat"
    assert after(hot, card(state), CALM_SECONDS[0]).held == ""


@pytest.mark.parametrize("state", sorted(set(ThermalState) - CALM))
def test_a_card_in_any_other_state_is_not_given_its_workers(state: ThermalState) -> None:
    hot = next_hold(FREE, TOO_HOT, 0)
    assert after(hot, card(state), 10 * CALM_SECONDS[-1]).heat


def test_a_silent_guard_is_not_believed_to_have_a_cool_card() -> None:
    hot = next_hold(FREE, TOO_HOT, 0)
    assert after(hot, None, 10 * CALM_SECONDS[-1]).held == "heat"
    # Nor does what was calm before the silence count.
    nearly = after(hot, NORMAL, CALM_SECONDS[0] - 1)
    assert next_hold(next_hold(nearly, None, 30), NORMAL, 31).held == "heat"


def test_a_lost_card_is_left_as_it_is() -> None:
    assert next_hold(FREE, card(ThermalState.LOST, stop=True), 0).held == ""


def test_a_card_that_gets_hot_again_and_again_waits_longer_each_time() -> None:
    hold, now, waits = FREE, 0.0, []
    for _ in range(len(CALM_SECONDS) + 1):
        hold, began = next_hold(hold, TOO_HOT, now), now
        while hold.heat:
            now += LOOK_SECONDS
            hold = next_hold(hold, NORMAL, now)
        waits.append(now - began - LOOK_SECONDS)
    assert waits == [*CALM_SECONDS, CALM_SECONDS[-1]]
    assert after(hold, NORMAL, FORGET_SECONDS, now).stops == 0


def test_a_stop_that_is_asked_for_on_and_on_counts_once() -> None:
    assert after(FREE, TOO_HOT, 100).stops == 1


def test_a_released_card_is_held_until_it_is_taken_back_even_if_its_guard_falls_silent() -> None:
    released = next_hold(FREE, card(ThermalState.RELEASED), 0)
    assert released.held == "released"
    assert next_hold(released, None, 1).held == "released"
    assert next_hold(released, NORMAL, 2).held == ""


@given(st.lists(st.tuples(cards, st.floats(0.1, 100)), max_size=60))
def test_workers_never_start_on_a_card_that_asks_for_their_stop_or_has_just_asked(
    looks: list[tuple[ThermalData | None, float]],
) -> None:
    hold, now, asked_at = FREE, 0.0, float("-inf")
    for seen, seconds in looks:
        now += seconds
        hold = next_hold(hold, seen, now)
        if seen is not None and seen.stop_requested and seen.state is not ThermalState.LOST:
            asked_at = now
        if now - asked_at < CALM_SECONDS[0]:
            assert hold.held == "heat"


@given(st.lists(st.tuples(cards, st.floats(0.1, 100)), max_size=30))
def test_a_card_that_stays_cool_is_free_in_the_end(
    looks: list[tuple[ThermalData | None, float]],
) -> None:
    hold, now = FREE, 0.0
    for seen, seconds in looks:
        now += seconds
        hold = next_hold(hold, seen, now)
    assert after(hold, NORMAL, calm_seconds(hold.stops) + LOOK_SECONDS, now).held == ""


def worker(number: int, state: WorkerState, main_pid: int = 0, gpu: int = 0) -> WorkerStatus:
    return WorkerStatus(
        number=number,
        unit="",
        state=state,
        main_pid=main_pid,
        gpu=gpu,
        gpu_uuid="",
        numa_node=0,
        cpus="",
        process_count=0,
        requests=0,
        failures=0,
        restarts=0,
        since=1,
    )


def test_a_card_is_occupied_by_every_worker_that_is_not_wholly_down() -> None:
    workers = [
        worker(0, WorkerState.STOPPED),
        worker(1, WorkerState.FAILED),
        worker(2, WorkerState.STARTING),
        worker(3, WorkerState.DRAINING, 30),
        worker(4, WorkerState.FAILED, 40),
        worker(5, WorkerState.READY, 50, gpu=1),
    ]
    assert occupants(workers, 0) == [2, 3, 4]
