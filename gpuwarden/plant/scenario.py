# SPDX-License-Identifier: Apache-2.0
"""Scenario files: what the world does to a card over time. Pure but for ``load_scenario``.

``{"duration_s": 3600, "initial": {"sink_c": 70}, "steps": [{"at_s": 0, "ambient_c": 24,
"load": 0.9, "resistance_factor": 1.6, "ramp_s": 600}, ...]}``
"""

from bisect import bisect_right
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpuwarden.plant.physics import Environment
from gpuwarden.plant.problems import describe

Celsius = Annotated[float, Field(ge=-40, le=120, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86400, allow_inf_nan=False)]


class ScenarioError(Exception):
    """A scenario file can't be used; the text names the field and what is allowed."""


class Part(BaseModel):
    """Base: no unknown keys, no text for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Initial(Part):
    """Where the card starts, if not settled."""

    sink_c: Celsius


class Step(Part):
    """From ``at_s`` on, reached over ``ramp_s``."""

    at_s: Seconds
    ambient_c: Celsius
    load: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    resistance_factor: Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)] = 1.0
    ramp_s: Seconds = 0.0


class Scenario(Part):
    """A whole scenario file."""

    duration_s: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
    initial: Initial | None = None
    steps: Annotated[list[Step], Field(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> "Scenario":
        if self.steps[0].at_s != 0:
            raise ValueError(
                f"steps.0.at_s must be 0: it is the start (found {self.steps[0].at_s})"
            )
        for number, (former, step) in enumerate(pairwise(self.steps), 1):
            if step.at_s <= former.at_s:
                raise ValueError(
                    f"steps.{number}.at_s must be later than the step before it "
                    f"(found {step.at_s} after {former.at_s})"
                )
        if self.steps[-1].at_s >= self.duration_s:
            raise ValueError(
                f"steps.{len(self.steps) - 1}.at_s must lie before duration_s "
                f"(found {self.steps[-1].at_s} of {self.duration_s})"
            )
        return self

    def at(self, seconds: float) -> Environment:
        """The world at ``seconds``; before the start it is as at the start."""
        number = max(0, bisect_right(self._starts, seconds) - 1)
        step = self.steps[number]
        since = seconds - step.at_s
        if number == 0 or since >= step.ramp_s:
            return self._ends[number]
        before = self.at_end_of(number - 1)
        share = since / step.ramp_s
        return Environment(
            ambient_celsius=before.ambient_celsius
            + (step.ambient_c - before.ambient_celsius) * share,
            load=before.load + (step.load - before.load) * share,
            resistance_factor=before.resistance_factor
            + (step.resistance_factor - before.resistance_factor) * share,
            context_open=True,
        )

    def at_end_of(self, number: int) -> Environment:
        """The world when step ``number`` gives way to the next: its ramp may be cut short."""
        end = self.steps[number + 1].at_s
        step = self.steps[number]
        if number == 0 or end - step.at_s >= step.ramp_s:
            return environment(step)
        share = (end - step.at_s) / step.ramp_s
        before = self.at_end_of(number - 1)
        return Environment(
            before.ambient_celsius + (step.ambient_c - before.ambient_celsius) * share,
            before.load + (step.load - before.load) * share,
            before.resistance_factor + (step.resistance_factor - before.resistance_factor) * share,
            True,
        )

    @property
    def steady_since(self) -> float:
        """When the world changes for the last time, in seconds; 0 if it never does."""
        end = self._ends[-1]
        for number in range(len(self.steps) - 1, 0, -1):
            if self.at_end_of(number - 1) != end:
                step = self.steps[number]
                return min(step.at_s + step.ramp_s, self.duration_s)
        return 0.0

    @cached_property
    def _starts(self) -> list[float]:
        return [step.at_s for step in self.steps]

    @cached_property
    def _ends(self) -> list[Environment]:
        return [environment(step) for step in self.steps]


def environment(step: Step) -> Environment:
    """The world once a step's ramp is over."""
    return Environment(step.ambient_c, step.load, step.resistance_factor, context_open=True)


def parse_scenario(text: str, name: str) -> Scenario:
    """Check a scenario.

    :param name: what to call it in errors.
    :raises ScenarioError: naming each wrong field.
    """
    try:
        return Scenario.model_validate_json(text)
    except ValidationError as error:
        raise ScenarioError("\n".join(f"{name}: {line}" for line in describe(error))) from error


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario file.

    :raises ScenarioError: unreadable, or wrong in a field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: can't be read: {error}") from error
    return parse_scenario(text, str(path))
