# SPDX-License-Identifier: Apache-2.0
"""docs/events.md, made from the journal's catalogue: ``python -m tools.events_table``."""

import re
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.systemd.events import Event

ROOT = Path(__file__).parents[1]
CATALOGUE = ROOT / "packaging" / "catalog" / "gpuwarden.catalog"
DOCUMENT = ROOT / "docs" / "events.md"
FIELD = re.compile(r"@([A-Z][A-Z0-9_]*)@")

_HEAD = """\
# Events

Every event in the journal has a `MESSAGE_ID` and a name in the field `GPUWARDEN_EVENT`.
`gpuwarden logs --explain`, or `journalctl -x`, shows with each what happened, why, and what to do;
this table is made from the same catalogue (`/usr/lib/systemd/catalog/gpuwarden.catalog`).
`gpuwarden logs --event xid` finds those of one kind, with `--gpu 0` those of one card.

The last column has the fields that the explanation fills in. An event has more of them where they
apply: `GPU`, `GPU_UUID`, `WORKER`, `TEMPERATURE_CELSIUS`, `POWER_LIMIT_WATTS`, `STATE_OLD`,
`STATE_NEW`, `REASON`. The `MESSAGE_ID` is `2f1c5ad1c0e04a0f9d1b6d7c0a5b7e` and the two digits of
the first column. No image, question or answer is ever in the journal.

| | event | means | what to do | fields |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Entry:
    """One entry of the catalogue.

    :ivar head: ``Subject`` and the other lines before the text, by name.
    """

    message_id: str
    head: dict[str, str]
    paragraphs: tuple[str, ...]

    @property
    def fields(self) -> frozenset[str]:
        """What it fills in from the journal's entry."""
        return frozenset(FIELD.findall("\n".join((*self.head.values(), *self.paragraphs))))


def read(text: str) -> list[Entry]:
    """The entries of a catalogue, in their order."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [_entry(block) for block in re.split(r"^-- ", lines, flags=re.MULTILINE)[1:]]


def _entry(block: str) -> Entry:
    message_id, _, rest = block.partition("\n")
    head, *paragraphs = rest.strip().split("\n\n")
    pairs = (line.partition(": ")[::2] for line in head.splitlines())
    unfolded = (re.sub(r"\s*\n\s*", " ", each) for each in paragraphs)
    return Entry(message_id.strip(), dict(pairs), tuple(unfolded))


def document(entries: list[Entry]) -> str:
    """The page."""
    names = {event.message_id: event.label for event in Event}
    return _HEAD + "".join(f"{_row(each, names[each.message_id])}\n" for each in entries)


def _row(entry: Entry, name: str) -> str:
    what_to_do = entry.paragraphs[-1]
    cells = (
        f"`{entry.message_id[-2:]}`",
        f"`{name}`",
        _plain(entry.head["Subject"]),
        _plain(what_to_do),
        ", ".join(f"`{field}`" for field in sorted(entry.fields)),
    )
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return FIELD.sub(lambda match: f"*{match[1]}*", text).replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(document(read(CATALOGUE.read_text(encoding="ascii"))), encoding="ascii")
