# SPDX-License-Identifier: Apache-2.0
"""What a thermal guard's state means for its card's workers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.control.snapshot import Snapshot
from gpuwarden.control.states import ThermalData
from gpuwarden.gateway.heat import (
    COOL,
    UNKNOWN,
    CardHeat,
    Moment,
    cooler,
    is_cooler,
    is_news,
    judge,
    sentence,
)
from gpuwarden.gateway.work import ECO, CardLimits
from gpuwarden.values import ThermalState

CARD = 1
BOOT = "this boot"
SECOND = 10**9
NOW = 1000 * SECOND

limits = st.builds(
    CardLimits, st.none() | st.integers(1, 8), st.floats(0.01, 1.0), paused=st.booleans()
)


def published(
    *, age_seconds: float = 0.5, boot: str = BOOT, **changes: Any
) -> Snapshot[ThermalData]:
    cool: dict[str, Any] = {"index": CARD, "state": ThermalState.NORMAL, "since": 0}
    data = ThermalData(uuid="GPU-1", name="", pci_address="", numa_node=0, **(cool | changes))
    return Snapshot[ThermalData](
        schema_version=1,
        component="thermal",
        boot_id=boot,
        pid=1,
        sequence=1,
        unix_microseconds=0,
        boottime_nanoseconds=NOW - int(age_seconds * SECOND),
        valid_milliseconds=3000,
        data=data,
    )


def seen(state: Snapshot[ThermalData] | str, before: CardHeat = UNKNOWN) -> CardHeat:
    return judge(before, CARD, state, Moment(BOOT, NOW))


def test_a_guard_that_limits_nothing_leaves_the_card_alone() -> None:
    heat = seen(published())
    assert (heat.limits, heat.believed) == (CardLimits(), True)


def test_what_the_guard_asks_for_holds() -> None:
    heat = seen(published(state="alert", reason="die 79 C", batch_limit=2, dispatch_duty=0.5))
    assert heat.limits == CardLimits(2, 0.5)
    assert heat.reason == "alert: die 79 C"


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "critical", "admission": "paused"},
        {"state": "critical", "stop_requested": True},
        {"state": "alert", "dispatch_duty": 0.0},
    ],
)
def test_a_card_to_be_left_alone_is_paused(changes: dict[str, Any]) -> None:
    assert seen(published(**changes)).limits.paused


@pytest.mark.parametrize("state", ["blind", "lost", "released"])
def test_a_guard_that_does_not_see_its_card_leaves_it_eco_at_most(state: str) -> None:
    assert seen(published(state=state)).limits == ECO
    assert seen(published(state=state, dispatch_duty=0.3)).limits == CardLimits(1, 0.3)


def test_before_a_guard_has_said_anything_its_card_is_eco() -> None:
    heat = seen("/run/gpuwarden/thermal/1.json: not there (its writer has not started)")
    assert (heat.limits, heat.believed) == (ECO, False)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (published(age_seconds=3.1), "nothing for over 3 s"),
        (published(age_seconds=-1.0), "nothing for over 3 s"),
        (published(boot="another"), "another boot"),
        (published(index=0), "index is 0, should be 1"),
        (published(batch_limit=0), "batch_limit is 0, should be 1 or more"),
        (published(dispatch_duty=1.5), "dispatch_duty is 1.5, should be 0 to 1"),
        (published(dispatch_duty=float("nan")), "dispatch_duty is nan"),
        ("1.json: not a snapshot of schema 1", "not a snapshot"),
    ],
)
def test_a_state_that_does_not_count_leaves_the_card_eco_and_says_why(
    state: Snapshot[ThermalData] | str, reason: str
) -> None:
    heat = seen(state, COOL)
    assert (heat.limits, heat.believed) == (ECO, False)
    assert reason in heat.reason


@given(said=limits, gone=st.sampled_from(["", "stale", "another boot", "nonsense"]))
def test_without_a_guard_the_cooler_of_its_last_words_and_eco_holds(
    said: CardLimits, gone: str
) -> None:
    words: dict[str, Any] = {
        "batch_limit": said.batch_limit,
        "dispatch_duty": said.duty,
        "admission": "paused" if said.paused else "open",
    }
    before = seen(published(**words))
    states: dict[str, Snapshot[ThermalData] | str] = {
        "": "not there",
        "stale": published(age_seconds=60.0, **words),
        "another boot": published(boot="another"),
        "nonsense": published(index=7),
    }
    lost = states[gone]
    heat = seen(lost, before)
    assert heat.limits == CardLimits(1, said.duty, said.paused)
    assert seen(lost, heat).limits == heat.limits  # however long it stays away
    assert seen(published(), heat).limits == CardLimits()


def test_a_state_that_is_stale_when_it_is_first_seen_counts_as_last_words() -> None:
    heat = seen(published(age_seconds=60.0, admission="paused", dispatch_duty=0.5))
    assert heat.limits == CardLimits(1, 0.5, paused=True)


@given(one=limits, other=limits)
def test_the_cooler_of_two_is_as_strict_as_either(one: CardLimits, other: CardLimits) -> None:
    both = cooler(one, other)
    assert both == cooler(other, one)
    assert cooler(both, one) == both
    assert both.duty <= min(one.duty, other.duty)
    assert both.paused >= max(one.paused, other.paused)


def test_the_journal_hears_of_changes_and_not_of_each_step_of_a_regulated_duty() -> None:
    told = CardHeat(CardLimits(1, 0.5), believed=True)
    assert not is_news(told, CardHeat(CardLimits(1, 0.45), "hotter", believed=True))
    assert is_news(told, CardHeat(CardLimits(1, 0.4), believed=True))
    assert is_news(told, CardHeat(CardLimits(2, 0.5), believed=True))
    assert is_news(told, CardHeat(CardLimits(1, 0.5, paused=True), believed=True))
    assert is_news(told, CardHeat(CardLimits(1, 0.5), believed=False))
    nearly = CardHeat(CardLimits(1, 0.95), believed=True)
    assert is_news(nearly, CardHeat(CardLimits(1, 1.0), believed=True))


def test_what_grows_stricter_is_a_warning() -> None:
    eco = CardHeat(ECO, believed=True)
    assert is_cooler(COOL, eco)
    assert not is_cooler(eco, COOL)
    assert is_cooler(eco, CardHeat(ECO, believed=False))
    assert not is_cooler(CardHeat(ECO, believed=False), eco)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (CardLimits(), "it is not limited"),
        (CardLimits(2, 0.5), "at most 2 together, work for 50% of the time"),
        (CardLimits(1, 0.5, paused=True), "it is given no new work"),
    ],
)
def test_limits_in_words(what: CardLimits, words: str) -> None:
    assert sentence(what) == words
