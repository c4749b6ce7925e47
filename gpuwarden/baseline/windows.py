# SPDX-License-Identifier: Apache-2.0
"""From what was read at both ends of a window, and once a second in it, to the window. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpuwarden.baseline.recording import CardWindow, Requests, Times, Window
from gpuwarden.control.states import ThermalData

PREFIX = "gpuwarden_gateway_"
OUTCOMES = ("completed", "failed", "rejected", "cancelled")
IDLE = "idle"  # the clock event reason of a card that has nothing to do

Series = tuple[str, tuple[tuple[str, str], ...]]  # name and its labels, in order


class UnreadablePageError(Exception):
    """The front door's metrics are not what this version knows; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Page:
    """The front door's metrics at one moment, by series."""

    values: Mapping[Series, float]

    def of(self, name: str, **labels: str) -> float:
        """A series' value; 0 for one that has not begun. Its family must be there."""
        return self.values.get((f"{PREFIX}{name}", tuple(sorted(labels.items()))), 0.0)

    def buckets(self, name: str) -> list[tuple[float, float]]:
        """Bound and how many values are not over it, in order. Raises UnreadablePageError."""
        wanted = f"{PREFIX}{name}_bucket"
        found = [
            (float(dict(labels)["le"]), value)
            for (series, labels), value in self.values.items()
            if series == wanted
        ]
        if not found:
            raise UnreadablePageError(f"its metrics have no {PREFIX}{name}")
        return sorted(found)


@dataclass(slots=True)
class Watched:
    """What was seen of the cards in a window, look by look."""

    looks: list[Mapping[int, ThermalData]] = field(default_factory=list)

    def cards(self) -> dict[int, CardWindow]:
        """Each card that was seen at all."""
        indices = sorted({index for look in self.looks for index in look})
        return {n: _card([look[n] for look in self.looks if n in look]) for n in indices}


def window(
    start_seconds: float,
    seconds: float,
    before: Page | None,
    after: Page | None,
    watched: Watched,
) -> Window:
    """The window; without requests where the front door was silent or began anew."""
    problem = ""
    requests = None
    if before is None or after is None:
        problem = "the front door was silent"
    elif _began_anew(before, after):
        problem = "the front door was restarted"
    else:
        requests = _requests(before, after)
    return Window(
        start_seconds=start_seconds,
        seconds=seconds,
        requests=requests,
        cards=watched.cards(),
        problem=problem,
    )


def _began_anew(before: Page, after: Page) -> bool:
    """Whether a counter is lower than it was, or another version counts."""
    if [bound for bound, _ in before.buckets("total_seconds")] != [
        bound for bound, _ in after.buckets("total_seconds")
    ]:
        return True
    counted = [
        *((page.of("accepted_total"), page.of("total_seconds_count")) for page in (before, after))
    ]
    return any(old > new for old, new in zip(*counted, strict=True))


def _requests(before: Page, after: Page) -> Requests:
    grown = {
        outcome: after.of("requests_total", outcome=outcome)
        - before.of("requests_total", outcome=outcome)
        for outcome in OUTCOMES
    }
    return Requests(
        **grown,
        total=_times(before, after, "total_seconds"),
        waiting=_times(before, after, "queue_wait_seconds"),
        computing=_times(before, after, "execution_seconds"),
        batches=after.of("batch_size_count") - before.of("batch_size_count"),
        batched=after.of("batch_size_sum") - before.of("batch_size_sum"),
    )


def _times(before: Page, after: Page, name: str) -> Times:
    old, new = before.buckets(name), after.buckets(name)
    below = [late - early for (_, early), (_, late) in zip(old, new, strict=True)]
    counts = [each - former for former, each in zip([0.0, *below], below, strict=False)]
    grown = after.of(f"{name}_sum") - before.of(f"{name}_sum")
    return Times(bounds=[bound for bound, _ in new[:-1]], counts=counts, sum_seconds=grown)


def _card(seen: Sequence[ThermalData]) -> CardWindow:
    slowed = [bool(set(each.clock_event_reasons) - {IDLE}) for each in seen if _is_read(each)]
    return CardWindow(
        celsius_mean=_mean(each.temperature_celsius for each in seen),
        celsius_highest=_highest(each.temperature_celsius for each in seen),
        memory_celsius_highest=_highest(each.memory_temperature_celsius for each in seen),
        watts_mean=_mean(each.power_watts for each in seen),
        limit_watts_lowest=_lowest(each.power_limit_watts for each in seen),
        utilization_mean=_mean(each.utilization for each in seen),
        vram_used_bytes_highest=_whole(_highest(each.vram_used_bytes for each in seen)),
        throttled_share=sum(slowed) / len(slowed) if slowed else None,
    )


def _is_read(data: ThermalData) -> bool:
    return data.temperature_celsius is not None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None


def _highest(values: Iterable[float | None]) -> float | None:
    return max(_known(values), default=None)


def _lowest(values: Iterable[float | None]) -> float | None:
    return min(_known(values), default=None)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
