# SPDX-License-Identifier: Apache-2.0
"""Writes what was measured into docs/thermal-h200.md, and draws it.

``python -m tools.trial_report``, from what ``tests.gpu.survey`` and ``tests.gpu.holding`` recorded.
"""

import json
from pathlib import Path
from typing import Any

from gpuwarden.chart.svg import svg
from tools.trial_chart import trial_drawing
from tools.trial_figures import Figures, figures_of, read_samples

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY / "tests" / "unit" / "data"
DOCUMENT = REPOSITORY / "docs" / "thermal-h200.md"
DRAWING = REPOSITORY / "docs" / "images" / "h200-duty.svg"


def load(name: str) -> Any:
    """A recorded JSON document."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def reading_table(survey: dict[str, Any]) -> str:
    """Each reading with its cost."""
    lines = ["| reading | value | unit | median us | p99 us |", "|---|---|---|--:|--:|"]
    for each in survey["readings"]:
        value = "answered" if each["value"] in ("True", "None", "()") else each["value"]
        if "(" in each["value"] and "=" in each["value"]:
            value = "all of it"
        if not each["supported"]:
            value = f"not there: {value}"
        cost = f"{each['median_us']:.1f} | {each['p99_us']:.1f}"
        lines.append(f"| `{each['name']}` | {value} | {each['unit']} | {cost} |")
    loop = survey["loop"]
    lines += [
        "",
        f"{survey['card']}, driver {survey['driver']}, {survey['date']}. The sampler of the guard, "
        f"5 times a second for {loop['seconds']:.0f} s: {loop['samples']} samples, "
        f"{loop['refused']} doubted, {loop['cpu_share']:.1%} of one core.",
    ]
    return "\n".join(lines)


def calibration_table(trials: dict[str, dict[str, Any]]) -> str:
    """What batches and duty do, for each kind of work."""
    lines = [
        "| work | given | die mean | die peak | HBM | watts mean | answers a second |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for work, trial in trials.items():
        for row in trial["calibration"]:
            lines.append(
                f"| {work} | {row['phase']} | {row['die_mean_celsius']:.1f} C "
                f"| {row['die_highest_celsius']:.0f} C | {row['hbm_mean_celsius']:.1f} C "
                f"| {row['watts_mean']:.0f} | {row['requests_per_second']:.1f} |"
            )
    return "\n".join(lines)


def figures_table(figures: Figures, trial: dict[str, Any]) -> str:
    """What was held, beside full work."""
    full, held = figures.full, figures.held
    rows = [
        ("die, mean", f"{full.mean_celsius:.1f} C", f"{held.mean_celsius:.1f} C"),
        (
            "die, mean of 10 s, lowest and highest",
            f"{full.lowest_mean_celsius:.1f} to {full.highest_mean_celsius:.1f} C",
            f"{held.lowest_mean_celsius:.1f} to {held.highest_mean_celsius:.1f} C",
        ),
        ("die, peak", f"{full.peak_celsius:.0f} C", f"{held.peak_celsius:.0f} C"),
        ("HBM, mean", f"{full.hbm_celsius:.1f} C", f"{held.hbm_celsius:.1f} C"),
        ("watts, mean", f"{full.watts:.0f}", f"{held.watts:.0f}"),
        ("watts, peak (field 186)", f"{full.peak_watts:.0f}", f"{held.peak_watts:.0f}"),
        ("duty, mean", f"{full.duty:.0%}", f"{held.duty:.0%}"),
        (
            "answers a second",
            f"{full.requests_per_second:.1f}",
            f"{held.requests_per_second:.1f} ({figures.work_kept:.0%})",
        ),
    ]
    return "\n".join(
        [
            f"| | full work | held, alert {figures.alert_celsius:g} C |",
            "|---|--:|--:|",
            *(f"| {name} | {free} | {less} |" for name, free, less in rows),
            "",
            f"At rest the die has {figures.rest_celsius:.0f} C. The mean of ten seconds was at "
            f"alert or below for good {figures.within_seconds:.0f} s after the threshold was "
            f"lowered; of the samples from then on (the first minute left out) "
            f"{figures.above_share:.0%} were above it: the peaks. {figures.back_seconds:.0f} s "
            "after it was taken back, nothing was held back any more. Of "
            f"{trial['samples']} samples {len(trial['refused'])} were doubted; sampling and "
            f"deciding took {trial['cpu_share']:.1%} of one core.",
            "",
            "| minute under the lowered threshold | duty | die, mean | die, peak | watts, peak |",
            "|---|--:|--:|--:|--:|",
            *(
                f"| {number} | {each.duty:.0%} | {each.mean_celsius:.1f} C "
                f"| {each.peak_celsius:.0f} C | {each.peak_watts:.0f} |"
                for number, each in enumerate(figures.minutes, 1)
            ),
        ]
    )


def blocks() -> dict[str, str]:
    """The measured parts of the document by name."""
    trial = load("h200_holding.json")
    figures = figures_of(read_samples(DATA / "h200_holding.csv"))
    works = {"1 image, 100 tokens": load("h200_decode.json"), "4 images, 60 tokens": trial}
    return {
        "readings": reading_table(load("h200_reading.json")),
        "calibration": calibration_table(works),
        "held": figures_table(figures, trial),
    }


def drawing() -> str:
    """The trial as SVG."""
    trial = load("h200_holding.json")
    title = f"{trial['card']}: its mean held by rests alone, {trial['date']}"
    return svg(trial_drawing(title, read_samples(DATA / "h200_holding.csv")))


def filled(document: str) -> str:
    """The document with its measured parts as they follow from the data.

    :raises ValueError: it lacks a part's marks.
    """
    for name, text in blocks().items():
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        before, found, rest = document.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{DOCUMENT}: no marks for {name!r}")
        document = before + begin + text + end + after
    return document


def main() -> None:
    """Write both."""
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    DRAWING.parent.mkdir(exist_ok=True)
    DRAWING.write_text(drawing(), encoding="utf-8")


if __name__ == "__main__":
    main()
