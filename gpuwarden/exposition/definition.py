# SPDX-License-Identifier: Apache-2.0
"""What a metric is called, what it means and which labels it has. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a value may do."""

    COUNTER = "counter"  # only grows, from its process's start or the boot
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric, with its labels' values in the definition's order."""

    definition: "Definition"
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric. Its name ends in its base unit; a counter's in ``_total``.

    :ivar name: as Prometheus shows it.
    :ivar meaning: one sentence.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()

    def __call__(self, value: float, *labels: object) -> Sample:
        """A sample of it. Raises ValueError: another number of labels than it has."""
        if len(labels) != len(self.labels):
            wanted = ", ".join(self.labels) or "none"
            raise ValueError(f"{self.name} has the labels {wanted}, not {labels!r}")
        return Sample(self, tuple(str(each) for each in labels), float(value))

    def known(self, value: float | None, *labels: object) -> Iterator[Sample]:
        """A sample of it; none where the value is unknown: nothing is invented."""
        if value is not None:
            yield self(value, *labels)

    def one_of(self, chosen: str, allowed: Iterable[str], *labels: object) -> Iterator[Sample]:
        """A sample for each allowed word of the last label: 1 for the chosen one, 0 for others."""
        for word in allowed:
            yield self(word == chosen, *labels, word)


class Definitions:
    """All metrics of one service, in the order in which they were defined."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._all: dict[str, Definition] = {}

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._all.values())

    def counter(self, name: str, meaning: str, *labels: str) -> Definition:
        """Define what only grows; ``_total`` is added to its name."""
        return self._define(f"{name}_total", Kind.COUNTER, meaning, labels)

    def gauge(self, name: str, meaning: str, *labels: str) -> Definition:
        """Define what goes up and down."""
        return self._define(name, Kind.GAUGE, meaning, labels)

    def histogram(self, name: str, meaning: str, *labels: str) -> Definition:
        """Define what is counted by its size."""
        return self._define(name, Kind.HISTOGRAM, meaning, labels)

    def _define(self, name: str, kind: Kind, meaning: str, labels: tuple[str, ...]) -> Definition:
        definition = Definition(f"{self._prefix}_{name}", kind, meaning, labels)
        if definition.name in self._all:
            raise ValueError(f"{definition.name} is defined twice")
        self._all[definition.name] = definition
        return definition
