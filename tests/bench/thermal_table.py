# SPDX-License-Identifier: Apache-2.0
"""The table of docs/thermal.md: a row a case, both policies side by side."""

import re
from collections.abc import Sequence

from gpuwarden.simulate.constant import BestConstant
from gpuwarden.simulate.evaluation import Evaluation
from tests.bench.document import DOCUMENTS, write, written
from tests.bench.thermal_trial import Trial

DOCUMENT = DOCUMENTS / "thermal.md"
BEGIN = "<!-- table: python -m tests.bench.thermal -->"
END = "<!-- end of the table -->"
UNKNOWN = "-"
HEADER = (
    "scenario",
    "best constant",
    "work",
    "of the best",
    "of stepped",
    "over alert + 1 (s)",
    "critical (s)",
    "peak (C)",
    "swing (C)",
    "writes/h",
    "back (s)",
)
# How far each column but the first may be off.
TOLERANCES = (2.0, 1.0, 0.01, 0.01, 5.0, 0.4, 0.6, 0.6, 40.0, 10.0)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def table(trials: Sequence[Trial]) -> list[str]:
    """Markdown: a heading and a table a card."""
    lines: list[str] = []
    for card in dict.fromkeys(trial.case.card for trial in trials):
        lines += [f"### {card}", "", _row(HEADER), _row(["---"] * len(HEADER))]
        lines += [row(trial) for trial in trials if trial.case.card == card]
        lines.append("")
    return lines


def row(trial: Trial) -> str:
    """One case: ``regulated / stepped`` wherever both have the figure."""
    seen, other, best = trial.regulated, trial.stepped, trial.best
    cells = [
        trial.case.name,
        _constant(best),
        _both(_percent(seen.throughput_ratio), _percent(other.throughput_ratio)),
        _ratio(seen.throughput_ratio, None if best is None else best.throughput_ratio),
        _ratio(seen.throughput_ratio, other.throughput_ratio),
        *_figures(seen, other),
    ]
    return _row(cells)


def _figures(seen: Evaluation, other: Evaluation) -> list[str]:
    return [
        _both(f"{seen.seconds_above_alert_plus_1:.0f}", f"{other.seconds_above_alert_plus_1:.0f}"),
        _both(f"{seen.longest_critical_seconds:.1f}", f"{other.longest_critical_seconds:.1f}"),
        _both(f"{seen.peak_celsius:.1f}", f"{other.peak_celsius:.1f}"),
        _both(_one(seen.steady_peak_to_peak_celsius), _one(other.steady_peak_to_peak_celsius)),
        _both(f"{seen.writes_per_hour:.0f}", f"{other.writes_per_hour:.0f}"),
        _both(_whole(seen.recovery_seconds), _whole(other.recovery_seconds)),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _both(one: str, other: str) -> str:
    return one if one == other == UNKNOWN else f"{one} / {other}"


def _constant(best: BestConstant | None) -> str:
    if best is None:
        return "none"
    clock = "" if best.sm_clock_mhz is None else f", {best.sm_clock_mhz} MHz"
    return f"{best.limit_watts:.0f} W{clock}: {_percent(best.throughput_ratio)}"


def _percent(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio * 100:.1f} %"


def _ratio(part: float | None, whole: float | None) -> str:
    return UNKNOWN if part is None or not whole else f"{part / whole:.3f}"


def _one(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f}"


def _whole(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def agree(one: str, other: str) -> bool:
    """Whether two rows say the same; the last digit of a processor's exp() may move a write."""
    ours, theirs = _cells(one), _cells(other)
    if len(ours) != len(theirs) or ours[0] != theirs[0]:
        return False
    columns = zip(ours[1:], theirs[1:], TOLERANCES, strict=True)
    return all(_near(a, b, tolerance) for a, b, tolerance in columns)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _near(one: str, other: str, tolerance: float) -> bool:
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= tolerance for a, b in pairs)


def documented() -> list[str]:
    """The lines between the marks of the document."""
    return written(DOCUMENT, BEGIN, END)


def is_documented(trial: Trial) -> bool:
    """Whether the document's row of this case says the same."""
    of_card = "\n".join(documented()).partition(f"### {trial.case.card}\n")[2]
    rows = of_card.partition("\n### ")[0].splitlines()
    return any(agree(old, row(trial)) for old in rows)


def put_into_document(lines: Sequence[str]) -> None:
    """Replace what is between the marks."""
    write(DOCUMENT, BEGIN, END, lines)
