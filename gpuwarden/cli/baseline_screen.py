# SPDX-License-Identifier: Apache-2.0
"""What recordings and their comparison look like on a screen, and as JSON."""

from collections.abc import Sequence
from datetime import datetime
from statistics import fmean, stdev
from typing import Any

from gpuwarden.baseline.comparison import CONFIDENCE, Comparison, Judged, Verdict
from gpuwarden.baseline.figures import FIGURES, Figure, values
from gpuwarden.baseline.noise import Difference
from gpuwarden.baseline.recording import Recording
from gpuwarden.baseline.store import Kept
from gpuwarden.chart.baseline import Frame
from gpuwarden.cli.output import UNKNOWN, coloured, duration, table

_COLOURS = {Verdict.BETTER: "good", Verdict.WORSE: "bad", Verdict.CHANGED: "warn"}
_SHOWN_CHARACTERS = 48


def list_lines(found: Sequence[Kept]) -> list[str]:
    """A line each, the oldest first."""
    if not found:
        return ["nothing is recorded yet (gpuwarden baseline record NAME)"]
    rows = [_row(each) for each in found]
    return table(("NAME", "STARTED", "LASTED", "WINDOWS", "ANSWERED", "NOTE"), rows)


def _row(kept: Kept) -> tuple[str, ...]:
    recording = kept.recording
    if recording is None:
        return kept.name, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, kept.problem
    cut = "" if recording.is_complete else f" of {recording.windows_wanted}, cut short"
    return (
        kept.name,
        _time(recording),
        duration(sum(each.seconds for each in recording.windows)),
        f"{len(recording.windows)}{cut}",
        f"{recording.answered:.0f}",
        recording.note,
    )


def show_lines(recording: Recording) -> list[str]:
    """One recording: what it is of, and each figure with how much it varies."""
    cards = ", ".join(f"GPU {card.index} {card.name}" for card in recording.cards) or "no card"
    cut = "" if recording.is_complete else f" of {recording.windows_wanted}: it was cut short"
    lines = [
        f"{recording.name}: {_time(recording)}, {len(recording.windows)} windows{cut}"
        + (f"; {recording.note}" if recording.note else ""),
        f"  {recording.host}, gpuwarden {recording.version}; {cards}; "
        f"models: {', '.join(recording.models) or 'none'}",
        "",
    ]
    rows = [_figure_row(figure, recording) for figure in FIGURES]
    lines += table(("FIGURE", "MEAN", "FROM WINDOW TO WINDOW"), [row for row in rows if row])
    lines += ["", f"{len(recording.settings)} settings are kept with it (--json shows them)"]
    return lines


def _figure_row(figure: Figure, recording: Recording) -> tuple[str, ...]:
    found = values(figure, recording.windows)
    if not found:
        return figure.title, UNKNOWN, UNKNOWN
    varies = f"+- {_value(stdev(found), figure)}" if len(found) > 1 else UNKNOWN
    return figure.title, _value(fmean(found), figure), varies


def compare_lines(comparison: Comparison) -> list[str]:
    """The verdict, each figure, what was set otherwise."""
    a, b = comparison.a.name, comparison.b.name
    rows = [_judged_row(each) for each in comparison.figures]
    lines = [
        comparison.verdict,
        "",
        *table(("FIGURE", a, b, "DIFFERENCE", "NOISE", "VERDICT"), rows),
        "",
        "No difference: none that can be told from noise, which column NOISE has; all verdicts "
        f"together with {CONFIDENCE:.0%} confidence.",
        "",
    ]
    if not comparison.changes:
        lines.append("No setting differs between them.")
    else:
        lines.append(f"Set otherwise ({len(comparison.changes)}):")
        rows = [(each.name, _short(each.a), _short(each.b)) for each in comparison.changes]
        lines += table(("SETTING", a, b), rows)
    return lines


def _judged_row(judged: Judged) -> tuple[str, ...]:
    figure, found = judged.figure, judged.difference
    if found is None:
        return figure.title, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, f"unknown ({judged.why})"
    said = "no difference" if judged.verdict is Verdict.SAME else judged.verdict.value
    said += f" ({judged.why})" if judged.why else ""
    return (
        figure.title,
        _value(found.mean_a, figure),
        _value(found.mean_b, figure),
        _relative(found, figure),
        _value(found.noise, figure),
        coloured(said, _COLOURS.get(judged.verdict, "")),
    )


def _relative(found: Difference, figure: Figure) -> str:
    change = found.mean_b - found.mean_a
    if figure.unit == "share" or not found.mean_a:
        return _signed(_value(change, figure))
    return f"{_signed(_value(change, figure))} ({change / found.mean_a:+.0%})"


def _signed(text: str) -> str:
    return text if text.startswith("-") else f"+{text}"


def _value(value: float, figure: Figure) -> str:
    if figure.unit == "share":
        return f"{value * 100:.1f} %"
    return (
        f"{value:.3g} {figure.unit}".rstrip()
        if abs(value) < 1000
        else (f"{value:.0f} {figure.unit}".rstrip())
    )


def _time(recording: Recording) -> str:
    moment = datetime.fromtimestamp(recording.started_unix_microseconds / 1e6).astimezone()
    return f"{moment:%Y-%m-%d %H:%M}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def compare_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison for scripts."""
    return {
        "schema": 1,
        "a": comparison.a.name,
        "b": comparison.b.name,
        "confidence": CONFIDENCE,
        "verdict": comparison.verdict,
        "figures": [_figure_document(each) for each in comparison.figures],
        "changes": [{"name": c.name, "a": c.a, "b": c.b} for c in comparison.changes],
        "warnings": list(comparison.warnings),
    }


def _figure_document(judged: Judged) -> dict[str, Any]:
    found = judged.difference
    return {
        "figure": judged.figure.key,
        "unit": judged.figure.unit,
        "verdict": judged.verdict,
        "a": found and found.mean_a,
        "b": found and found.mean_b,
        "low": found and found.low,
        "high": found and found.high,
        "why": judged.why,
    }


def frames(comparison: Comparison) -> list[Frame]:
    """What is drawn."""
    return [
        Frame(
            title=each.figure.title,
            unit=each.figure.unit,
            a=_series(each.figure, comparison.a),
            b=_series(each.figure, comparison.b),
            verdict="no difference" if each.verdict is Verdict.SAME else each.verdict.value,
        )
        for each in comparison.figures
    ]


def _series(figure: Figure, recording: Recording) -> list[tuple[float, float]]:
    return [
        (window.start_seconds + window.seconds / 2, value)
        for window in recording.windows
        if (value := figure.of(window)) is not None
    ]
