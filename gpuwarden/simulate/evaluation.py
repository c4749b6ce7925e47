# SPDX-License-Identifier: Apache-2.0
"""What a run was worth: the figures of ``gpuwarden simulate``. Pure.

Seconds count the readings in whole degrees, of die and memory each against its own thresholds;
peaks are the plant's unrounded degrees.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from gpuwarden.simulate.constant import BestConstant, is_holdable
from gpuwarden.simulate.recovery import recovery_seconds
from gpuwarden.simulate.rehearsal import Moment, Run
from gpuwarden.simulate.world import STEPS_PER_SECOND
from gpuwarden.thermal.thresholds import Thresholds

SCHEMA = 1
# Steady is what neither load, inlet nor resistance has changed since: the last ten minutes of it,
# less five in which the card settles (the slowest sink of a preset with a failed fan takes 175 s).
STEADY_SECONDS = 600
SETTLE_SECONDS = 300
LEAST_STEADY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The keys of the contract in its order; None: undefined for this run.

    :ivar throughput_ratio: None where no work was asked for.
    :ivar steady_peak_to_peak_celsius: of the sensor that swings most; None where the scenario
        doesn't end in a steady state.
    :ivar recovery_seconds: None where the limit was never lowered or had to stay so.
    :ivar final_sm_clock_mhz: the clock lock; None: not locked. Likewise the batch limit.
    """

    schema: int
    card: str
    scenario: str
    policy: str
    duration_seconds: float
    alert_celsius: float
    critical_celsius: float
    seconds_above_alert: float
    seconds_above_alert_plus_1: float
    seconds_at_or_above_critical: float
    longest_critical_seconds: float
    peak_celsius: float
    peak_memory_celsius: float | None
    throughput_ratio: float | None
    writes: int
    writes_per_hour: float
    steady_peak_to_peak_celsius: float | None
    recovery_seconds: float | None
    final_state: str
    final_limit_watts: float
    original_limit_watts: float
    final_sm_clock_mhz: int | None
    final_batch_limit: int | None
    final_dispatch_duty: float
    holdable: bool


def evaluate(run: Run, scenario: str, policy: str, holdable: bool | None = None) -> Evaluation:
    """Judge a finished run.

    :param scenario: its name; ``policy`` likewise.
    :param holdable: where that is known already; else it is tried out.
    """
    limits, moments, last = run.thresholds, run.moments, run.moments[-1]
    over = [_over(each, limits) for each in moments]
    critical = [_is_critical(each, limits) for each in moments]
    memory = [each.memory_celsius for each in moments if each.memory_celsius is not None]
    first, settings = run.worlds[0].plant, last.judgement.settings
    limit, original = settings.power_limit_watts, run.card.limit_default_watts
    return Evaluation(
        schema=SCHEMA,
        card=run.card.preset,
        scenario=scenario,
        policy=policy,
        duration_seconds=run.scenario.duration_s,
        alert_celsius=limits.alert_celsius,
        critical_celsius=limits.critical_celsius,
        seconds_above_alert=_seconds(excess > 0 for excess in over),
        seconds_above_alert_plus_1=_seconds(excess > 1 for excess in over),
        seconds_at_or_above_critical=_seconds(critical),
        longest_critical_seconds=_longest(critical),
        peak_celsius=max(first.die_celsius, *(each.die_celsius for each in moments)),
        peak_memory_celsius=max([first.memory_celsius or 0.0, *memory]) if memory else None,
        throughput_ratio=run.throughput_ratio,
        writes=run.writes,
        writes_per_hour=run.writes * 3600 / run.scenario.duration_s,
        steady_peak_to_peak_celsius=_steady_peak_to_peak(run),
        recovery_seconds=recovery_seconds(run),
        final_state=last.judgement.state.value,
        final_limit_watts=original if limit is None else limit,
        original_limit_watts=original,
        final_sm_clock_mhz=settings.sm_clock_mhz,
        final_batch_limit=settings.batch_limit,
        final_dispatch_duty=settings.dispatch_duty,
        holdable=is_holdable(run.card, run.scenario, limits) if holdable is None else holdable,
    )


def as_json(
    evaluation: Evaluation, best: BestConstant | None = None, *, with_best: bool = False
) -> dict[str, object]:
    """The contract's object.

    :param with_best: the best constant was looked for: ``best`` is said even if there is none.
    """
    keys: dict[str, object] = dataclasses.asdict(evaluation)
    if with_best:
        keys["best_constant"] = None if best is None else dataclasses.asdict(best)
    return keys


def _over(moment: Moment, limits: Thresholds) -> float:
    """How far the reading that is nearest to its alert, or furthest above, is above it."""
    die = moment.reading_celsius - limits.alert_celsius
    memory, alert = moment.memory_reading_celsius, limits.memory_alert_celsius
    return die if memory is None or alert is None else max(die, memory - alert)


def _is_critical(moment: Moment, limits: Thresholds) -> bool:
    memory, critical = moment.memory_reading_celsius, limits.memory_critical_celsius
    if memory is not None and critical is not None and memory >= critical:
        return True
    return moment.reading_celsius >= limits.critical_celsius


def _seconds(samples: Iterable[bool]) -> float:
    return sum(samples) / STEPS_PER_SECOND


def _longest(samples: Iterable[bool]) -> float:
    lengths = [sum(1 for _ in run) for value, run in groupby(samples) if value]
    return max(lengths, default=0) / STEPS_PER_SECOND


def _steady_peak_to_peak(run: Run) -> float | None:
    since = run.scenario.steady_since + SETTLE_SECONDS
    seconds = min(STEADY_SECONDS, run.scenario.duration_s - since)
    if seconds < LEAST_STEADY_SECONDS:
        return None
    last = run.moments[-round(seconds * STEPS_PER_SECOND) :]
    memory = [each.memory_celsius for each in last if each.memory_celsius is not None]
    return max(_swing([each.die_celsius for each in last]), _swing(memory))


def _swing(values: Sequence[float]) -> float:
    return max(values) - min(values) if values else 0.0
