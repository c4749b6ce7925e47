# SPDX-License-Identifier: Apache-2.0
"""Holds events to their explanation: each gives the fields that the catalogue's entry fills in."""

from collections.abc import Iterable
from functools import cache

from gpuwarden.systemd.events import Event
from tools.events_table import CATALOGUE, read


@cache
def explained() -> dict[str, frozenset[str]]:
    """The fields that each event's entry fills in, by MESSAGE_ID."""
    return {each.message_id: each.fields for each in read(CATALOGUE.read_text(encoding="ascii"))}


def lacking(event: Event, given: Iterable[str]) -> str:
    """What to do about an event that was told without a field of its entry; empty: all is well."""
    missing = sorted(explained().get(event.message_id, frozenset()) - set(given))
    if not missing:
        return ""
    return (
        f"{event} is told without {', '.join(missing)}, which its entry in {CATALOGUE.name} fills "
        "in: give it to tell(), or word the entry without it"
    )
