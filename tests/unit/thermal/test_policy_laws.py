# SPDX-License-Identifier: Apache-2.0
"""What holds for every card, whatever happens to it."""

import pytest
from hypothesis import given, settings

from gpuwarden.thermal.decision import UNTOUCHED
from gpuwarden.thermal.policy import POLICIES
from tests.unit.thermal.plants import Case, Step, at_alert, cases, guarded

EXAMPLES = 25


def limit_of(case: Case, step: Step) -> float:
    limit = step.settings.power_limit_watts
    return case.card.limit_default_watts if limit is None else limit


def clock_of(case: Case, step: Step) -> int:
    clock = step.settings.sm_clock_mhz
    return case.card.clocks.sm_maximum if clock is None else clock


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(case=cases())
def test_any_card_is_kept_in_its_range_never_raised_at_alert_and_freed_when_cool(
    name: str, case: Case
) -> None:
    former: Step | None = None
    for step in guarded(case, case.make(name)):
        limit, clock = limit_of(case, step), clock_of(case, step)
        assert case.card.limit_minimum_watts <= limit <= case.card.limit_default_watts
        assert case.card.clocks.sm_minimum <= clock <= case.card.clocks.sm_maximum
        assert 0 < step.settings.dispatch_duty <= 1
        if former is not None and at_alert(case.thresholds, step.reading):
            assert limit <= limit_of(case, former), step
            assert clock <= clock_of(case, former), step
        former = step
    assert former is not None
    assert former.settings == UNTOUCHED, former
