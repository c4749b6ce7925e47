# SPDX-License-Identifier: Apache-2.0
"""The last minutes of each card, for the small charts. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpuwarden.chart.series import Moment
from gpuwarden.control.states import ThermalData

TRAIL_SECONDS = 300.0


@dataclass(frozen=True)
class Sample:
    """A card at one moment; None: unknown. Shares are from 0 to 1."""

    at_seconds: float
    celsius: float | None = None
    watts: float | None = None
    limit_watts: float | None = None
    load_share: float | None = None
    vram_share: float | None = None


Trail = Mapping[int, tuple[Sample, ...]]
Figure = Callable[[Sample], float | None]


def longer(trail: Trail, gpus: Sequence[ThermalData], now_unix_seconds: float) -> Trail:
    """The trail with what the cards are now; what is too old is gone, as are cards that are."""
    began = now_unix_seconds - TRAIL_SECONDS
    return {
        gpu.index: (
            *(each for each in trail.get(gpu.index, ()) if each.at_seconds >= began),
            _sample(gpu, now_unix_seconds),
        )
        for gpu in gpus
    }


def with_past(trail: Trail, gpu_index: int, moments: Sequence[Moment]) -> Trail:
    """The trail with a card's past before it; the guard keeps heat and watts alone.

    :param moments: oldest first.
    """
    samples = trail.get(gpu_index, ())
    first = samples[0].at_seconds if samples else float("inf")
    past = (
        Sample(each.at_seconds, each.celsius_highest or each.celsius, each.watts, each.limit_watts)
        for each in moments
        if each.at_seconds < first
    )
    return {**trail, gpu_index: (*past, *samples)}


def parts(
    samples: Sequence[Sample], figure: Figure, now_unix_seconds: float, count: int
) -> list[float | None]:
    """The most of each of ``count`` equal parts of the trail; None where nothing is known.

    The parts' ends are multiples of their length, so that a chart moves on by whole characters.
    """
    length = TRAIL_SECONDS / count
    newest = int(now_unix_seconds / length)
    most: list[float | None] = [None] * count
    for sample in samples:
        place = count - 1 - (newest - int(sample.at_seconds / length))
        value = figure(sample)
        if value is not None and 0 <= place < count:
            former = most[place]
            most[place] = value if former is None else max(value, former)
    return most


def _sample(gpu: ThermalData, now: float) -> Sample:
    used, total = gpu.vram_used_bytes, gpu.vram_total_bytes
    share = used / total if used is not None and total else None
    return Sample(
        at_seconds=now,
        celsius=gpu.temperature_celsius,
        watts=gpu.power_watts,
        limit_watts=gpu.power_limit_watts,
        load_share=gpu.utilization,
        vram_share=share,
    )
