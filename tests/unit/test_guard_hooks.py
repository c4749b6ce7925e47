# SPDX-License-Identifier: Apache-2.0
"""Which hooks a change of a card's state asks for."""

from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.config.thermal import HookSettings
from gpuwarden.guard.hooks import entered, hook_name, hooks_on, states_now
from gpuwarden.values import ThermalState

NORMAL, ALERT, BLIND = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.BLIND

HOOKS = [
    HookSettings(on=("alert", "critical"), post="http://127.0.0.1:7861/?mode=eco&token=secret"),
    HookSettings(on=("normal",), command=("/usr/local/bin/page", "--cool")),
    HookSettings(on=("alert",), command=("/usr/local/bin/page",)),
]
states = st.dictionaries(st.integers(0, 7), st.sampled_from(ThermalState))


def test_a_hook_is_for_the_states_that_it_names() -> None:
    assert hooks_on(ALERT, HOOKS) == [0, 2]
    assert hooks_on(ThermalState.CRITICAL, HOOKS) == [0]
    assert hooks_on(NORMAL, HOOKS) == [1]
    assert hooks_on(BLIND, HOOKS) == []


def test_a_state_is_entered_once() -> None:
    assert entered({0: NORMAL, 1: NORMAL}, {0: ALERT, 1: NORMAL}) == {0: ALERT}
    assert entered({0: ALERT}, {0: ALERT}) == {}
    assert entered({0: ALERT}, {0: NORMAL}) == {0: NORMAL}


def test_a_card_seen_for_the_first_time_is_no_news_while_it_is_normal() -> None:
    assert entered({}, states_now({}, {0: NORMAL, 1: ALERT})) == {1: ALERT}
    assert states_now({}, {}) == {}


def test_a_card_whose_guard_falls_silent_is_blind() -> None:
    before = {0: NORMAL, 1: ALERT}
    now = states_now(before, {1: ALERT})
    assert now == {0: BLIND, 1: ALERT}
    assert entered(before, now) == {0: BLIND}
    assert entered(now, states_now(now, {1: ALERT})) == {}


@given(states, states)
def test_every_difference_is_entered_and_nothing_else(
    before: dict[int, ThermalState], fresh: dict[int, ThermalState]
) -> None:
    now = states_now(before, fresh)
    news = entered(before, now)
    assert now.keys() == before.keys() | fresh.keys()
    for gpu, state in now.items():
        assert (gpu in news) == (state is not before.get(gpu, NORMAL))
        assert news.get(gpu, state) is state


def test_a_hooks_name_tells_no_secret_of_its_url() -> None:
    assert hook_name(0, HOOKS[0]) == "thermal.hooks[0] (http://127.0.0.1:7861/)"
    assert hook_name(1, HOOKS[1]) == "thermal.hooks[1] (/usr/local/bin/page)"
    assert hook_name(7) == "thermal.hooks[7]"
