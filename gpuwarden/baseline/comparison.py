# SPDX-License-Identifier: Apache-2.0
"""Two recordings held against each other: what differs, and by more than noise. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gpuwarden.baseline.figures import FIGURES, Figure, bucket_of, values
from gpuwarden.baseline.noise import LEAST_VALUES, Difference, difference
from gpuwarden.baseline.recording import Recording

CONFIDENCE = 0.95  # of all figures together: each is held to its share of what is left (Bonferroni)
LEAST_SHARE = 0.01  # of the former value: less is not worth a change, however surely it is there
WINDOW_RATIO = 1.5  # the hottest moment of a longer window is hotter by itself
LOAD_SHARE = 0.1  # more than that, and times depend on the load as much as on the change
NO_DIFFERENCE = "no difference that can be told from noise"


class Verdict(StrEnum):
    """What became of a figure from A to B."""

    BETTER = "better"
    WORSE = "worse"
    CHANGED = "changed"  # and neither way is good or bad
    SAME = "same"  # no difference that can be told from noise
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judged:
    """A figure of both recordings.

    :ivar difference: None where there were too few windows with it.
    :ivar why: of UNKNOWN, and of SAME where it is not noise alone.
    """

    figure: Figure
    verdict: Verdict
    difference: Difference | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that is not the same in both."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole of it.

    :ivar warnings: why the figures may not mean what they seem to.
    """

    a: Recording
    b: Recording
    figures: tuple[Judged, ...]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One sentence."""
        found = {v: [j for j in self.figures if j.verdict is v] for v in Verdict}
        if not found[Verdict.BETTER] and not found[Verdict.WORSE]:
            if all(each.verdict is Verdict.UNKNOWN for each in self.figures):
                return "nothing can be said: too little was recorded"
            return NO_DIFFERENCE
        parts = [
            f"{word} in {', '.join(each.figure.title for each in found[word])}"
            for word in (Verdict.BETTER, Verdict.WORSE)
            if found[word]
        ]
        return f"{self.b.name} is {', and '.join(parts)}"


def compare(a: Recording, b: Recording) -> Comparison:
    """Hold B against A."""
    confidence = 1 - (1 - CONFIDENCE) / len(FIGURES)
    figures = tuple(_judge(figure, a, b, confidence) for figure in FIGURES)
    changes = tuple(_changes(a, b))
    warnings = (*_warnings(a, b, changes), *_conditions(a, b, confidence))
    return Comparison(a, b, figures, changes, warnings)


def _judge(figure: Figure, a: Recording, b: Recording, confidence: float) -> Judged:
    of_a, of_b = values(figure, a.windows), values(figure, b.windows)
    found = difference(of_a, of_b, confidence)
    if found is None:
        few = [r.name for r, known in ((a, of_a), (b, of_b)) if len(known) < LEAST_VALUES]
        why = f"{' and '.join(few)}: known in fewer than {LEAST_VALUES} windows"
        return Judged(figure, Verdict.UNKNOWN, None, why)
    if not found.can_be_told:
        return Judged(figure, Verdict.SAME, found)
    change = found.mean_b - found.mean_a
    if abs(change) < max(figure.least, LEAST_SHARE * abs(found.mean_a)):
        return Judged(figure, Verdict.SAME, found, "too little to matter")
    if figure.share is not None and (between := _same_bucket(found, a)):
        return Judged(figure, Verdict.SAME, found, f"both between {between}, known no finer")
    if figure.better == "neither":
        return Judged(figure, Verdict.CHANGED, found)
    is_better = (change < 0) == (figure.better == "lower")
    return Judged(figure, Verdict.BETTER if is_better else Verdict.WORSE, found)


def _same_bucket(found: Difference, recording: Recording) -> str:
    """The bounds that hold both percentiles, in words; empty where they are in different ones."""
    bounds = next(each.requests.total.bounds for each in recording.windows if each.requests)
    low, high = bucket_of(found.mean_a, bounds)
    return f"{low:g} and {high:g} s" if (low, high) == bucket_of(found.mean_b, bounds) else ""


def _changes(a: Recording, b: Recording) -> list[Change]:
    """Settings that both know and that differ.

    Those excepted that changed while one of them was recorded; what is in one of them alone was not
    visible to the other (a command without root, a former version).
    """
    restless = {*a.unsettled, *b.unsettled}
    names = sorted(({*a.settings} & {*b.settings}) - restless)
    pairs = [Change(name, a.settings[name], b.settings[name]) for name in names]
    return [each for each in pairs if each.a != each.b]


def _warnings(a: Recording, b: Recording, changes: Sequence[Change]) -> list[str]:
    found = []
    if a.machine != b.machine:
        found.append(f"two nodes: {a.name} is of {a.host}, {b.name} of {b.host}")
    cards_a, cards_b = ([card.name for card in each.cards] for each in (a, b))
    if cards_a != cards_b:
        found.append(f"other cards: {_listed(cards_a)}; {_listed(cards_b)}")
    elif a.machine == b.machine and [c.uuid for c in a.cards] != [c.uuid for c in b.cards]:
        found.append("cards of the same kind, and not the same ones")
    if a.models != b.models:
        found.append(f"other models: {_listed(a.models)}; {_listed(b.models)}")
    if a.simulated or b.simulated:
        found.append("SIMULATED cards: heat and power are the simulator's")
    for each in (a, b):
        found += _about(each)
    if len(changes) > 1:
        found.append(
            f"{len(changes)} settings changed between them: one change at a time, or nobody "
            "knows which of them it was"
        )
    return found


def _conditions(a: Recording, b: Recording, confidence: float) -> list[str]:
    """Where the two were not measured alike."""
    found = []
    lengths = sorted((a.window_seconds, b.window_seconds))
    if lengths[1] > lengths[0] * WINDOW_RATIO:
        found.append(
            f"windows of {lengths[0]:g} and {lengths[1]:g} s: extremes of longer ones are higher; "
            "record both for the same time"
        )
    load = difference(_asked(a), _asked(b), confidence)
    if load and load.can_be_told and abs(load.mean_b - load.mean_a) > LOAD_SHARE * load.mean_a:
        found.append(
            f"another load: {load.mean_a:.3g} and {load.mean_b:.3g} requests a second; where that "
            "is not the change's own doing, times can't be compared"
        )
    return found


def _asked(recording: Recording) -> list[float]:
    """Requests a second in each window, whatever became of them."""
    return [
        (each.requests.completed + each.requests.failed + each.requests.rejected) / each.seconds
        for each in recording.windows
        if each.requests
    ]


def _about(recording: Recording) -> list[str]:
    found = []
    if not recording.is_complete:
        found.append(
            f"{recording.name} was cut short: {len(recording.windows)} of "
            f"{recording.windows_wanted} windows"
        )
    if not recording.answered:
        found.append(f"nothing was answered while {recording.name} was recorded")
    if recording.unsettled:
        found.append(
            f"while {recording.name} was recorded, {_listed(recording.unsettled)} changed: it is "
            "not compared"
        )
    problems = sorted({each.problem for each in recording.windows if each.problem})
    if problems:
        lost = sum(bool(each.problem) for each in recording.windows)
        found.append(f"{recording.name}: {' and '.join(problems)} in {lost} windows")
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
