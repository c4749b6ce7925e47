# SPDX-License-Identifier: Apache-2.0
"""What DCGM's host engine holds of the cards, by what ``dcgmi`` prints. Pure but for asking.

DCGM that only measures is nobody's rival. One with a configuration puts it back after resets, and
a policy may reset a card beneath its workers.
"""

from dataclasses import dataclass

from gpuwarden.doctor.commands import Answer, Run

# Rows of `dcgmi config --get` and `dcgmi policy --get` (DCGM user guide, "Configuration" and
# "Policy").
_TARGETS = ("Power Limit", "SM Application Clock", "Memory Application Clock")
_ACTION = "Action on violation"
_UNSET = ("Not Specified", "")


@dataclass(frozen=True, slots=True)
class Dcgm:
    """The answers of dcgmi."""

    configuration: Answer
    policy: Answer

    @property
    def problem(self) -> str:
        """Why it is unknown what DCGM holds; empty where it isn't."""
        return self.configuration.problem

    @property
    def held(self) -> list[str]:
        """What it enforces on some card."""
        rows = _rows(self.configuration.text)
        return [name for name, target in rows if name in _TARGETS and target not in _UNSET]

    @property
    def action(self) -> str:
        """What it does to a card that violates its policy; empty where nothing is known of any."""
        actions = [value for name, value in _rows(self.policy.text) if name == _ACTION]
        return next((value for value in actions if value not in ("None", "")), "")


def ask(run: Run) -> Dcgm:
    """Ask the host engine of this machine."""
    return Dcgm(run(["dcgmi", "config", "--get"]), run(["dcgmi", "policy", "--get"]))


def _rows(text: str) -> list[tuple[str, str]]:
    """The first two cells of each row."""
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    return [(row[1], row[2]) for row in rows if len(row) > 2]
