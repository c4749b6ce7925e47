# SPDX-License-Identifier: Apache-2.0
"""What a check says: a verdict with what was found, what is wanted, why, and how to mend. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum

AS_ROOT = "run as root: sudo gpuwarden doctor"


class Verdict(StrEnum):
    """How bad it is; the worst first."""

    WRONG = "wrong"  # it will hurt: the service, its patients' data or its promises
    DOUBTFUL = "doubtful"  # it may cost something, or somebody may want it so
    UNKNOWN = "unknown"  # it can't be seen from here
    GOOD = "good"
    NOT_APPLICABLE = "not applicable"  # this node has no such thing


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer.

    :ivar mend: a command as a shell takes it, with what else there is to say behind a ``#``; words
        where no command does it; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    found: str
    wanted: str
    why: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a node, and why; the answers are findings."""

    name: str
    wanted: str
    why: str

    def about(self, subject: str, wanted: str = "") -> "Question":
        """The same question about one of several, say ``worker 0``."""
        return replace(self, name=f"{self.name} of {subject}", wanted=wanted or self.wanted)

    def good(self, found: str) -> Finding:
        """As it should be."""
        return Finding(self.name, Verdict.GOOD, found, self.wanted, self.why)

    def wrong(self, found: str, mend: str, why: str = "") -> Finding:
        """It will hurt. ``why`` says it better than the question's where the case is special."""
        return Finding(self.name, Verdict.WRONG, found, self.wanted, why or self.why, mend)

    def doubtful(self, found: str, mend: str, why: str = "") -> Finding:
        """It may hurt, or cost something."""
        return Finding(self.name, Verdict.DOUBTFUL, found, self.wanted, why or self.why, mend)

    def unknown(self, found: str, mend: str = "") -> Finding:
        """It can't be seen from here; ``found`` says what stands in the way."""
        return Finding(self.name, Verdict.UNKNOWN, found, self.wanted, self.why, mend)

    def not_applicable(self, found: str) -> Finding:
        """This node has no such thing; ``found`` says what it lacks."""
        return Finding(self.name, Verdict.NOT_APPLICABLE, found, self.wanted, self.why)
