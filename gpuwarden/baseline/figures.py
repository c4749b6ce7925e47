# SPDX-License-Identifier: Apache-2.0
"""The figures by which recordings are compared, and each window's value of them. Pure."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpuwarden.baseline.recording import CardWindow, Times, Window

Better = Literal["lower", "higher", "neither"]

# A percentile of fewer requests is the slowest of them, or a matter of luck.
LEAST_REQUESTS = {0.5: 4, 0.95: 20, 0.99: 100}
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    """What is compared.

    :ivar key: its name in JSON; ``title`` for people; ``unit`` of its values.
    :ivar better: which way is good news.
    :ivar of: a window's value; None where it has none.
    :ivar share: the percentile that it is, as a share; None: it is none.
    :ivar least: a smaller difference is none, since the figure is not known any finer.
    """

    key: str
    title: str
    unit: str
    better: Better
    of: Callable[[Window], float | None]
    share: float | None = None
    least: float = 0.0


def values(figure: Figure, windows: Sequence[Window]) -> list[float]:
    """The known values, in order."""
    return [value for window in windows if (value := figure.of(window)) is not None]


def quantile(times: Times, share: float) -> float | None:
    """The time within which that share of requests was answered; None of too few.

    Within a bucket it is taken as even, as Prometheus does; over the last bound it is that bound.
    """
    total = sum(times.counts)
    if total < LEAST_REQUESTS.get(share, 1):
        return None
    left = share * total
    for low, high, count in zip([0.0, *times.bounds], times.bounds, times.counts, strict=False):
        if count and left <= count:
            return low + (high - low) * left / count
        left -= count
    return times.bounds[-1]


def bucket_of(value: float, bounds: Sequence[float]) -> tuple[float, float]:
    """The bounds between which a value lies; finer than that, a histogram doesn't know it."""
    edges = (0.0, *bounds, float("inf"))
    return next((a, b) for a, b in itertools.pairwise(edges) if value <= b)


def _percentile(share: float) -> Callable[[Window], float | None]:
    return lambda window: quantile(window.requests.total, share) if window.requests else None


def _mean_of(part: Literal["total", "waiting", "computing"]) -> Callable[[Window], float | None]:
    def mean(window: Window) -> float | None:
        if window.requests is None:
            return None
        times: Times = getattr(window.requests, part)
        count = sum(times.counts)
        return times.sum_seconds / count if count else None

    return mean


def _throughput(window: Window) -> float | None:
    return window.requests.completed / window.seconds if window.requests else None


def _unanswered(window: Window) -> float | None:
    requests = window.requests
    if requests is None:
        return None
    lost = requests.failed + requests.rejected
    asked = requests.completed + lost
    return lost / asked if asked else None


def _batch(window: Window) -> float | None:
    requests = window.requests
    return requests.batched / requests.batches if requests and requests.batches else None


def _over_cards(
    of: Callable[[CardWindow], float | None], join: Callable[[Sequence[float]], float]
) -> Callable[[Window], float | None]:
    """Joined over the cards; None unless all of them have it."""

    def joined(window: Window) -> float | None:
        found = [of(card) for card in window.cards.values()]
        known = [value for value in found if value is not None]
        return join(known) if known and len(known) == len(found) else None

    return joined


_POWER = _over_cards(lambda card: card.watts_mean, sum)


def _energy(window: Window) -> float | None:
    watts = _POWER(window)
    if watts is None or window.requests is None or not window.requests.completed:
        return None
    return watts * window.seconds / window.requests.completed


def _vram_mib(card: CardWindow) -> float | None:
    used = card.vram_used_bytes_highest
    return None if used is None else used / MIB


FIGURES = (
    Figure("mean_seconds", "time to the answer (mean)", "s", "lower", _mean_of("total")),
    Figure("p50_seconds", "time to the answer (p50)", "s", "lower", _percentile(0.5), 0.5),
    Figure("p95_seconds", "time to the answer (p95)", "s", "lower", _percentile(0.95), 0.95),
    Figure("p99_seconds", "time to the answer (p99)", "s", "lower", _percentile(0.99), 0.99),
    Figure("waiting_seconds", "of it in the queue (mean)", "s", "lower", _mean_of("waiting")),
    Figure("computing_seconds", "of it in the worker (mean)", "s", "lower", _mean_of("computing")),
    Figure("throughput", "answers a second", "/s", "higher", _throughput),
    Figure("unanswered_share", "failed or refused", "share", "lower", _unanswered),
    Figure("batch_size", "requests a batch", "", "neither", _batch),
    Figure(
        "hottest_celsius",
        "hottest die",
        "C",
        "lower",
        _over_cards(lambda card: card.celsius_highest, max),
        least=1.0,
    ),
    Figure(
        "hottest_memory_celsius",
        "hottest memory",
        "C",
        "lower",
        _over_cards(lambda card: card.memory_celsius_highest, max),
        least=1.0,
    ),
    Figure("power_watts", "power of all cards", "W", "lower", _POWER),
    Figure("energy_joules", "energy an answer", "J", "lower", _energy),
    Figure(
        "throttled_share",
        "time with clocks held down",
        "share",
        "lower",
        _over_cards(lambda card: card.throttled_share, max),
    ),
    Figure("vram_mib", "memory of all cards in use", "MiB", "lower", _over_cards(_vram_mib, sum)),
)
