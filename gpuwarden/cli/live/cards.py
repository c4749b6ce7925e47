# SPDX-License-Identifier: Apache-2.0
"""Cards on the screen of ``gpuwarden top``: figures, small charts, and the state in words. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden.cli.gpus import card_colour
from gpuwarden.cli.live.lines import Line, line
from gpuwarden.cli.live.trail import Figure, Sample, parts
from gpuwarden.cli.output import UNKNOWN, gibibytes, number, of
from gpuwarden.cli.sparkline import scaled
from gpuwarden.cli.status_screen import lasting
from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState

# docs/thermal.md, "States"; for who has not read it.
WORDS = {
    ThermalState.NORMAL: "cool enough",
    ThermalState.ALERT: "hot: lower limits hold it",
    ThermalState.CRITICAL: "too hot: least power, no new work",
    ThermalState.RECOVERING: "cooler: its limits come back",
    ThermalState.BLIND: "no reading: cooled to be safe",
    ThermalState.RELEASED: "let go of for maintenance: nothing cools it",
    ThermalState.LOST: "gone: the driver has no such card",
}
COLDEST_CELSIUS = 20.0  # where the charts of temperatures begin: a machine room's air
HOTTEST_CELSIUS = 100.0  # and end, of a card that names no critical temperature
_LABELS_CHARACTERS = 44  # of a line with two charts, all that is no chart
_COMPACT_LABELS_CHARACTERS = 51  # of one with four
LONGEST_CHART = 60


@dataclass(frozen=True)
class Paper:
    """What is drawn on: when, how wide, and with which characters from low to high."""

    now_unix_seconds: float
    columns: int
    levels: str


def full_card(
    gpu: ThermalData, samples: Sequence[Sample], paper: Paper, *, chosen: bool
) -> list[Line]:
    """A headline, five charts on three lines, and beside the last one why it isn't normal."""
    colour = card_colour(gpu)
    since = lasting(gpu.since, paper.now_unix_seconds)
    name = gpu.name.removeprefix("NVIDIA ")
    draw = _drawing(gpu, samples, paper, _LABELS_CHARACTERS, 2)
    return [
        line(
            _mark(chosen),
            (f"GPU {gpu.index} {name} ", "strong"),
            (gpu.state.upper(), colour or "good"),
            f" for {since}, {WORDS[gpu.state]}{_thresholds(gpu)}",
            chosen=chosen,
        ),
        line(
            f"    temp {number(gpu.temperature_celsius):>3} C {_memory(gpu):<7} ",
            *draw.celsius,
            f"  power {number(gpu.power_watts):>10} W ",
            *draw.watts,
        ),
        line(
            f"    load {_percent(gpu.utilization):>3} % {'':<7} ",
            *draw.load,
            f"  limit {_limit(gpu):>10} W ",
            *draw.limit,
        ),
        line(
            f"    VRAM {_vram(gpu):>11} G ",
            *draw.vram,
            (f"  {gpu.reason}" if gpu.reason else "", colour),
        ),
    ]


def compact_card(
    gpu: ThermalData, samples: Sequence[Sample], paper: Paper, *, chosen: bool
) -> list[Line]:
    """One line with four short charts, where there are many cards or few lines."""
    draw = _drawing(gpu, samples, paper, _COMPACT_LABELS_CHARACTERS, 4)
    return [
        line(
            _mark(chosen),
            f"{gpu.index:>2} ",
            (f"{gpu.state:<10}", card_colour(gpu)),
            f" {number(gpu.temperature_celsius):>3} C ",
            *draw.celsius,
            f" {of(number(gpu.power_watts), number(gpu.power_limit_watts)):>7} W ",
            *draw.watts,
            f" {_percent(gpu.utilization):>3} % ",
            *draw.load,
            f" {of(_whole(gpu.vram_used_bytes), _whole(gpu.vram_total_bytes)):>7} G ",
            *draw.vram,
            chosen=chosen,
        )
    ]


@dataclass(frozen=True)
class _Charts:
    celsius: tuple[str | tuple[str, str], ...]
    watts: tuple[str | tuple[str, str], ...]
    limit: tuple[str | tuple[str, str], ...]
    load: tuple[str | tuple[str, str], ...]
    vram: tuple[str | tuple[str, str], ...]


def _drawing(
    gpu: ThermalData, samples: Sequence[Sample], paper: Paper, labels: int, side_by_side: int
) -> _Charts:
    brackets = 2 * side_by_side if side_by_side == 2 else 0
    room = (paper.columns - labels - brackets) // side_by_side
    count = max(4, min(room, LONGEST_CHART))
    colour = card_colour(gpu)
    hottest = gpu.critical_celsius or HOTTEST_CELSIUS
    most_watts = max(gpu.original_power_limit_watts or 0, gpu.power_limit_watts or 0, 1.0)

    def drawn(
        figure: Figure, low: float, high: float, kind: str = ""
    ) -> tuple[str | tuple[str, str], ...]:
        values = parts(samples, figure, paper.now_unix_seconds, count)
        text = (scaled(values, low, high, paper.levels), kind)
        return ("[", text, "]") if brackets else (text,)

    return _Charts(
        drawn(lambda each: each.celsius, COLDEST_CELSIUS, hottest, colour),
        drawn(lambda each: each.watts, 0.0, most_watts),
        drawn(lambda each: each.limit_watts, 0.0, most_watts),
        drawn(lambda each: each.load_share, 0.0, 1.0),
        drawn(lambda each: each.vram_share, 0.0, 1.0),
    )


def _thresholds(gpu: ThermalData) -> str:
    if gpu.alert_celsius is None:
        return ""
    return f"; alert {number(gpu.alert_celsius)}, critical {number(gpu.critical_celsius)} C"


def _memory(gpu: ThermalData) -> str:
    celsius = gpu.memory_temperature_celsius
    return "" if celsius is None else f"HBM {celsius:.0f}"


def _limit(gpu: ThermalData) -> str:
    """Its power limit, and the administrator's where ours is lower."""
    limit, original = gpu.power_limit_watts, gpu.original_power_limit_watts
    is_lowered = limit is not None and original is not None and limit < original - 0.5
    return f"{number(limit)} ({number(original)})" if is_lowered else number(limit)


def _vram(gpu: ThermalData) -> str:
    return of(gibibytes(gpu.vram_used_bytes), gibibytes(gpu.vram_total_bytes))


def _whole(size_bytes: int | None) -> str:
    return UNKNOWN if size_bytes is None else f"{size_bytes / 2**30:.0f}"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.0%}".removesuffix("%")


def _mark(chosen: bool) -> str:
    """Who is chosen is to be seen without colour, too."""
    return "> " if chosen else "  "
