# SPDX-License-Identifier: Apache-2.0
"""The dated protocol of a proof on a card, for people and for scripts. Pure."""

import json
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gpuwarden.cli.output import UNKNOWN, table
from gpuwarden.names import thermal_unit
from gpuwarden.text import one_line

Verdict = Literal["good", "bad", "skipped"]
ACTUATORS = {"power-limit": "Power limit", "sm-clock-lock": "SM clock lock"}
_HEADER = ("STEP", "ASKED", "ANSWERED", "READ BACK", "MS", "VERDICT")


class Step(BaseModel):
    """One thing that was asked of the card.

    :ivar asked: the value, empty where none was.
    :ivar answered: ``ok``, or the driver's refusal.
    :ivar read_back: what the card had afterwards.
    :ivar note: what makes of it no more, or less, than it seems.
    """

    model_config = ConfigDict(frozen=True)

    actuator: Literal["power-limit", "sm-clock-lock"]
    step: str
    asked: str = ""
    answered: str = ""
    read_back: str = ""
    milliseconds: float | None = None
    verdict: Verdict
    note: str = ""


class Protocol(BaseModel):
    """The whole proof.

    :ivar restored: everything is on the card again as it was found.
    :ivar stopped: why it ended before its time; empty if it didn't.
    """

    schema_version: int = Field(1, serialization_alias="schema")
    date: datetime
    gpu: int
    name: str
    uuid: str
    pci_address: str
    driver_version: str | None
    simulated: bool
    power_minimum_watts: float | None
    power_maximum_watts: float | None
    steps: list[Step] = []
    restored: bool = True
    stopped: str = ""

    @property
    def is_good(self) -> bool:
        """Nothing failed; something may have been left out."""
        fine = all(step.verdict != "bad" for step in self.steps)
        return fine and self.restored and not self.stopped

    def outcome(self, actuator: str) -> str:
        """``proven``, ``not proven`` or ``not tried``."""
        own = [step.verdict for step in self.steps if step.actuator == actuator]
        if "bad" in own or (self.stopped and own):
            return "not proven"
        return "proven" if own and "skipped" not in own else "not tried"

    def as_json(self) -> str:
        """For scripts."""
        document = self.model_dump(mode="json", by_alias=True)
        document["outcomes"] = {name: self.outcome(name) for name in ACTUATORS}
        return json.dumps(document, indent=2)

    def lines(self) -> list[str]:
        """For people, and for the files of whoever has to show that it was done."""
        simulated = ", SIMULATED" if self.simulated else ""
        least, most = (_watts(self.power_minimum_watts), _watts(self.power_maximum_watts))
        lines = [
            f"Proof of what can be set on GPU {self.gpu}",
            f"  date    {self.date:%Y-%m-%d %H:%M:%S %z}",
            f"  card    {one_line(self.name)}, {one_line(self.uuid)}, {one_line(self.pci_address)}",
            f"  driver  {one_line(self.driver_version or 'of unknown version')}{simulated}",
            f"  limits  {least} to {most} W",
        ]
        for actuator, name in ACTUATORS.items():
            own = [step for step in self.steps if step.actuator == actuator]
            if own:
                lines += ["", name, *table(_HEADER, [_row(step) for step in own])]
            lines += [f"  {each.step}: {one_line(each.note)}" for each in own if each.note]
        return [*lines, "", *self._end()]

    def _end(self) -> list[str]:
        outcomes = [f"{name}: {self.outcome(actuator)}" for actuator, name in ACTUATORS.items()]
        lines = ["; ".join(outcomes)]
        if self.stopped:
            lines.append(f"stopped before the end: {one_line(self.stopped)}")
        if self.restored:
            return [*lines, "everything is as it was found"]
        unit = thermal_unit(self.gpu)
        how = f"systemctl start {unit} puts back what is on record; the steps say what was there"
        return [*lines, f"NOT EVERYTHING IS AS IT WAS FOUND: {how}"]


def _row(step: Step) -> tuple[str, ...]:
    took = UNKNOWN if step.milliseconds is None else f"{step.milliseconds:.1f}"
    texts = (step.asked or UNKNOWN, step.answered or UNKNOWN, step.read_back or UNKNOWN)
    return (step.step, *texts, took, step.verdict)


def _watts(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"
