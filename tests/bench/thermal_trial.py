# SPDX-License-Identifier: Apache-2.0
"""Both policies and the best constant setting on one case."""

from dataclasses import dataclass
from functools import partial

from gpuwarden.plant.cards import PRESETS
from gpuwarden.simulate.constant import BestConstant, best_constant
from gpuwarden.simulate.evaluation import Evaluation, evaluate
from gpuwarden.simulate.rehearsal import Run, rehearse, thresholds_for
from gpuwarden.simulate.world import STEPS_PER_SECOND
from gpuwarden.thermal.policy import POLICIES, make_policy
from tests.bench.thermal_cases import Case

AFTER_STEP_SECONDS = 5.0  # "right after a load step"


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.

    :ivar critical_without_step: when ``regulated`` read critical longer after a load step than
        that can be the reason.
    """

    case: Case
    regulated: Evaluation
    stepped: Evaluation
    best: BestConstant | None
    critical_without_step: tuple[float, ...]


def try_out(case: Case) -> Trial:
    """Rehearse both policies on the case and look for the best constant."""
    card, world = PRESETS[case.card], case.world()
    best = best_constant(card, world, thresholds_for(card))
    runs = {name: rehearse(card, world, partial(make_policy, name)) for name in POLICIES}
    judged = {
        name: evaluate(run, case.name, name, holdable=best is not None)
        for name, run in runs.items()
    }
    return Trial(
        case, judged["regulated"], judged["stepped"], best, critical_unasked(runs["regulated"])
    )


def critical_unasked(run: Run) -> tuple[float, ...]:
    """When the card read critical without a load step just before."""
    limits, found = run.thresholds, []
    memory_critical = limits.memory_critical_celsius
    stepped_at, load = 0.0, 0.0
    for each in run.moments:
        if each.load > load:
            stepped_at = each.seconds - 1 / STEPS_PER_SECOND
        load = each.load
        memory = each.memory_reading_celsius
        critical = each.reading_celsius >= limits.critical_celsius or (
            memory is not None and memory_critical is not None and memory >= memory_critical
        )
        if critical and each.seconds - stepped_at > AFTER_STEP_SECONDS:
            found.append(each.seconds)
    return tuple(found)
