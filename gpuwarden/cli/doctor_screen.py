# SPDX-License-Identifier: Apache-2.0
"""The doctor's screen: problems first, then doubts, then in short what is good."""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby

from gpuwarden.cli.output import coloured
from gpuwarden.doctor.checks import Told
from gpuwarden.doctor.findings import Finding, Verdict
from gpuwarden.doctor.node import Node
from gpuwarden.text import one_line

# Off a terminal, as an e-mail or a ticket shows it.
DEFAULT_COLUMNS = 100
NARROWEST_COLUMNS = 40
_COLOURS = {Verdict.WRONG: "bad", Verdict.DOUBTFUL: "warn", Verdict.GOOD: "good"}
_TITLES = {
    Verdict.WRONG: "Wrong",
    Verdict.DOUBTFUL: "Doubtful",
    Verdict.UNKNOWN: "Unknown",
    Verdict.GOOD: "Good",
    Verdict.NOT_APPLICABLE: "Not applicable",
}
_IN_FULL = (Verdict.WRONG, Verdict.DOUBTFUL)


def screen(node: Node, told: Sequence[Told], *, everything: bool) -> list[str]:
    """The lines; ``everything``: found, wanted and why of each, whatever its verdict."""
    columns = _columns()
    lines = [_headline(node, told)]
    for verdict in Verdict:
        findings = [each for each in told if each.finding.verdict is verdict]
        if not findings:
            continue
        title = coloured(_TITLES[verdict], _COLOURS.get(verdict, "strong"))
        lines += ["", f"{title} ({len(findings)})"]
        if everything or verdict in _IN_FULL:
            lines += _in_full(findings, columns, by_subject=everything)
        elif verdict is Verdict.UNKNOWN:
            lines += _with_reason(findings, columns)
        else:
            lines += _folded(", ".join(each.finding.name for each in findings), "  ", columns)
    if not everything:
        lines += ["", "Everything, with why: gpuwarden doctor --all"]
    return lines


def _headline(node: Node, told: Sequence[Told]) -> str:
    count = dict.fromkeys(Verdict, 0)
    for each in told:
        count[each.finding.verdict] += 1
    simulated = " with SIMULATED cards" if node.plan and node.plan.simulated else ""
    if count[Verdict.WRONG]:
        state = coloured("will not serve well", "bad")
    elif count[Verdict.DOUBTFUL]:
        state = f"{coloured('can serve', 'good')}, with doubts"
    else:
        state = coloured("is fit to serve", "good")
    shown = ", ".join(f"{count[verdict]} {verdict}" for verdict in Verdict if count[verdict])
    return f"This node{simulated} {state}: {shown}"


def _in_full(findings: Sequence[Told], columns: int, *, by_subject: bool) -> list[str]:
    lines: list[str] = []
    for subject, members in groupby(findings, key=lambda each: each.subject):
        if by_subject:
            lines.append(f"  [{subject}]")
        for each in members:
            lines += _finding(each.finding, columns)
    return lines


def _finding(finding: Finding, columns: int) -> list[str]:
    rows = [
        ("found", finding.found),
        ("wanted", finding.wanted),
        ("why", finding.why),
        # Not folded: a command is copied as it stands.
        ("mend", finding.mend),
    ]
    lines = [f"  {coloured(one_line(finding.name), 'strong')}"]
    for label, text in rows:
        if not text:
            continue
        head = f"    {label:<8}"
        lines += [f"{head}{one_line(text)}"] if label == "mend" else _folded(text, head, columns)
    return lines


def _with_reason(findings: Sequence[Told], columns: int) -> list[str]:
    width = max(len(one_line(each.finding.name)) for each in findings)
    lines: list[str] = []
    for each in findings:
        mend = f" ({each.finding.mend})" if each.finding.mend else ""
        head = f"  {one_line(each.finding.name):<{width}}  "
        lines += _folded(f"{each.finding.found}{mend}", head, columns)
    return lines


def _folded(text: str, head: str, columns: int) -> list[str]:
    """The text behind ``head``, further lines below its beginning."""
    return textwrap.wrap(
        one_line(text),
        width=columns,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns() -> int:
    if not sys.stdout.isatty():
        return DEFAULT_COLUMNS
    return max(NARROWEST_COLUMNS, min(DEFAULT_COLUMNS, shutil.get_terminal_size().columns))
