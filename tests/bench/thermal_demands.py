# SPDX-License-Identifier: Apache-2.0
"""What the regulated policy has to keep, as text where it doesn't."""

from collections.abc import Iterator

from tests.bench.thermal_trial import Trial

MOST_CRITICAL_SECONDS = 2.0
MOST_ABOVE_SECONDS = 60.0  # an hour, by more than 1 C
LEAST_OF_BEST = 0.97
LEAST_OF_STEPPED = 0.99
MOST_RECOVERY_SECONDS = 180.0
MOST_PEAK_TO_PEAK_CELSIUS = 4.0
MOST_WRITES = 200.0  # an hour
MOST_WRITES_IN_BURSTS = 400.0


def faults(trial: Trial) -> list[str]:
    """Each demand that the trial doesn't meet, with its figure."""
    return [*_heat(trial), *_work(trial), *_settings(trial)]


def _heat(trial: Trial) -> Iterator[str]:
    seen = trial.regulated
    if seen.longest_critical_seconds > MOST_CRITICAL_SECONDS:
        yield f"critical for {seen.longest_critical_seconds:.1f} s at a time"
    if trial.critical_without_step:
        yield f"critical without a load step at {trial.critical_without_step[0]:.1f} s"
    above = seen.seconds_above_alert_plus_1 * 3600 / seen.duration_seconds
    if seen.holdable and above > MOST_ABOVE_SECONDS:
        yield f"more than 1 C above alert for {above:.0f} s an hour"
    swing = seen.steady_peak_to_peak_celsius
    if swing is not None and swing > MOST_PEAK_TO_PEAK_CELSIUS:
        yield f"swings by {swing:.1f} C"


def _work(trial: Trial) -> Iterator[str]:
    seen, other, best = trial.regulated, trial.stepped, trial.best
    assert seen.throughput_ratio is not None, "every scenario has load"
    assert other.throughput_ratio is not None, "the same load"
    if best is not None and best.throughput_ratio:
        share = seen.throughput_ratio / best.throughput_ratio
        if share < LEAST_OF_BEST:
            yield f"{share:.3f} of the best constant's work"
    above = other.seconds_above_alert_plus_1 * 3600 / other.duration_seconds
    share = seen.throughput_ratio / other.throughput_ratio
    if above <= MOST_ABOVE_SECONDS and share < LEAST_OF_STEPPED:
        yield f"{share:.3f} of the work of stepped, which holds the card as well"


def _settings(trial: Trial) -> Iterator[str]:
    seen = trial.regulated
    most = MOST_WRITES_IN_BURSTS if trial.case.scenario == "bursts" else MOST_WRITES
    if seen.writes_per_hour > most:
        yield f"{seen.writes_per_hour:.0f} writes an hour"
    if seen.recovery_seconds is not None and seen.recovery_seconds > MOST_RECOVERY_SECONDS:
        yield f"original limit back after {seen.recovery_seconds:.0f} s"
