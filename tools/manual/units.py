# SPDX-License-Identifier: Apache-2.0
"""A page for each unit: what it is for, how to use it, and itself with the reasons it gives."""

import re
from collections.abc import Iterator
from pathlib import Path

from tools.manual.roff import Page

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "packaging" / "systemd"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
_ROW = re.compile(r"^\| (`[^|]*\.(?:service|target|slice|socket)`[^|]*) \| ([^|]*) \| ([^|]*) \|$")
_INSTANCE = re.compile(r"@[A-Z-]+(?=\.)")


def pages(date: str, version: str) -> Iterator[Page]:
    """In the order of their names."""
    jobs = dict(_jobs(ARCHITECTURE.read_text()))
    for file in sorted(UNITS.iterdir()):
        yield _page(file.name, file.read_text(), jobs.get(file.name), date, version)


def _jobs(text: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """What the table of docs/architecture.md says of a unit: whom it runs as, and its job."""
    for line in text.splitlines():
        if match := _ROW.match(line):
            for unit in re.findall(r"`([^`]+)`", match[1]):
                yield _INSTANCE.sub("@", unit), (match[2], match[3])


def _page(unit: str, text: str, job: tuple[str, str] | None, date: str, version: str) -> Page:
    (what,) = re.findall(r"^Description=(.*)$", text, re.MULTILINE)
    page = Page(unit, 8, what.replace("%i", "N"), date, version)
    page.section_of("Synopsis")
    page.paragraph(f"`{unit}`")
    page.section_of("Description")
    if job is not None:
        page.paragraph(f"It {job[1]}. Runs as {job[0]}.")
    else:
        page.paragraph(f"A part of gpuwarden: {what.replace('%i', 'N')}.")
    example = unit.replace("@.", "@0.")
    page.section_of("Use")
    page.item(f"systemctl status {example}", "what it does now, and why it fails if it does")
    page.item(f"journalctl -u {example}", "what it has said")
    page.item(f"systemctl cat {unit}", "the unit with all drop-ins of this node")
    page.item(f"systemctl edit {unit}", "change it for this node; an upgrade keeps that")
    page.section_of("Unit")
    page.paragraph("As it is shipped; a line that begins with # is the reason of what follows it.")
    page.verbatim(f"  {line}" if line else "" for line in text.splitlines())
    page.see_also([("gpuwarden", 1), ("systemctl", 1), ("gpuwarden.toml", 5), *_others(unit)])
    return page


def _others(unit: str) -> list[tuple[str, int]]:
    return [] if unit == "medgemma-guard.service" else [("medgemma-guard.service", 8)]
