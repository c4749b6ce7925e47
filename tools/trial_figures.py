# SPDX-License-Identifier: Apache-2.0
"""What a trial on a real card shows, from its recorded samples. Pure, but for reading files.

The samples are those that ``python -m tests.gpu.holding`` writes.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

MEAN_SECONDS = 10.0
SETTLED_AFTER_SECONDS = 60.0  # since the threshold was lowered
SAMPLE_SECONDS = 0.2
WINDOW = round(MEAN_SECONDS / SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample; mean and peak are the die's over the ten seconds that end with it."""

    seconds: float
    phase: str
    die_celsius: float
    hbm_celsius: float
    watts: float
    alert_celsius: float
    batch_limit: int
    duty: float
    requests: int
    mean_celsius: float
    peak_celsius: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some seconds of a trial in figures."""

    mean_celsius: float
    lowest_mean_celsius: float
    highest_mean_celsius: float
    peak_celsius: float
    hbm_celsius: float
    watts: float
    peak_watts: float
    duty: float
    requests_per_second: float


@dataclass(frozen=True, slots=True)
class Figures:
    """A whole trial.

    :ivar minutes: the held phase, minute by minute.
    :ivar within_seconds: after the lowering, until the mean was at alert or below for good.
    :ivar above_share: of the settled samples, how many were above alert.
    :ivar work_kept: requests a second while held, as a share of those at full work.
    :ivar back_seconds: after the threshold was taken back, until nothing was held back.
    """

    alert_celsius: float
    rest_celsius: float
    full: Stretch
    held: Stretch
    minutes: tuple[Stretch, ...]
    within_seconds: float
    above_share: float
    work_kept: float
    back_seconds: float


def read_samples(path: Path) -> list[Sample]:
    """The samples of a trial's CSV file, with their running means."""
    with path.open(encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    dies = [float(row["die_celsius"]) for row in rows]
    spans = [dies[max(0, number + 1 - WINDOW) : number + 1] for number in range(len(dies))]
    return [
        Sample(
            seconds=float(row["seconds"]),
            phase=row["phase"],
            die_celsius=dies[number],
            hbm_celsius=float(row["hbm_celsius"]),
            watts=float(row["watts"]),
            alert_celsius=float(row["alert_celsius"]),
            batch_limit=int(row["batch_limit"]),
            duty=float(row["dispatch_duty"]),
            requests=int(row["requests"]),
            mean_celsius=fmean(spans[number]),
            peak_celsius=max(spans[number]),
        )
        for number, row in enumerate(rows)
    ]


def figures_of(samples: Sequence[Sample]) -> Figures:
    """The trial in figures: each phase once it has settled."""
    phases = {name: [s for s in samples if s.phase == name] for name in ("rest", "full", "held")}
    back = [s for s in samples if s.phase == "given back"]
    held, lowered_at = phases["held"], phases["held"][0].seconds
    settled = [s for s in held if s.seconds >= lowered_at + SETTLED_AFTER_SECONDS]
    full = stretch([s for s in phases["full"] if s.seconds >= lowered_at - 30])
    alert = held[0].alert_celsius
    above = [s.seconds for s in held if s.mean_celsius > alert]
    free = next(s.seconds for s in back if s.duty == 1 and s.batch_limit == samples[0].batch_limit)
    held_figures = stretch(settled)
    return Figures(
        alert_celsius=alert,
        rest_celsius=phases["rest"][-1].mean_celsius,
        full=full,
        held=held_figures,
        minutes=tuple(
            stretch([s for s in held if 0 <= s.seconds - lowered_at - 60 * n < 60])
            for n in range(round((held[-1].seconds - lowered_at) / 60))
        ),
        within_seconds=(above[-1] if above else lowered_at) - lowered_at,
        above_share=fmean(s.die_celsius > alert for s in settled),
        work_kept=held_figures.requests_per_second / full.requests_per_second,
        back_seconds=free - back[0].seconds,
    )


def stretch(samples: Sequence[Sample]) -> Stretch:
    """These samples in figures."""
    first, last = samples[0], samples[-1]
    return Stretch(
        mean_celsius=fmean(s.die_celsius for s in samples),
        lowest_mean_celsius=min(s.mean_celsius for s in samples),
        highest_mean_celsius=max(s.mean_celsius for s in samples),
        peak_celsius=max(s.die_celsius for s in samples),
        hbm_celsius=fmean(s.hbm_celsius for s in samples),
        watts=fmean(s.watts for s in samples),
        peak_watts=max(s.watts for s in samples),
        duty=fmean(s.duty for s in samples),
        requests_per_second=(last.requests - first.requests) / (last.seconds - first.seconds),
    )
