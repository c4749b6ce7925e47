# SPDX-License-Identifier: Apache-2.0
"""What a section says: a table of figures, and the goals with whether they are met."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Goal:
    """One of the figures that the data plane is to keep.

    :param least: whether more is better.
    """

    what: str
    measured: float
    wanted: float
    unit: str = ""
    least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it is kept."""
        return self.measured >= self.wanted if self.least else self.measured <= self.wanted

    def row(self) -> str:
        """A row of the table of goals."""
        bound = "at least" if self.least else "at most"
        unit = f" {self.unit}" if self.unit else ""
        figures = f"{figure(self.measured)}{unit} | {bound} {self.wanted:g}{unit}"
        return f"| {self.what} | {figures} | {'met' if self.is_met else '**missed**'} |"


@dataclass
class Section:
    """The outcome of one part of the benchmark."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def lines(self) -> list[str]:
        """As Markdown."""
        return [
            f"### {self.title}",
            "",
            line(self.columns),
            line(["---"] * len(self.columns)),
            *map(line, self.rows),
            "",
        ]


def goals_of(sections: Sequence[Section]) -> list[str]:
    """All goals in one table; nothing where no section has any."""
    goals = [goal for section in sections for goal in section.goals]
    if not goals:
        return []
    head = ["### Goals", "", "| goal | measured | wanted | |", "| --- | --- | --- | --- |"]
    return [*head, *(goal.row() for goal in goals), ""]


def line(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def figure(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio(value: float, base: float | None) -> str:
    """How many times the base; a dash where there is none."""
    return f"{value / base:.2f}x" if base else "-"


def middle(values: Sequence[float]) -> float:
    """The median over the rounds."""
    return median(values)
