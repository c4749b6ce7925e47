# SPDX-License-Identifier: Apache-2.0
"""``journalctl -x`` explains every event, by what the event really carries."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gpuwarden
from gpuwarden.cli.main import COMMANDS
from gpuwarden.systemd.events import Event
from tests.events import lacking
from tools.events_table import CATALOGUE, DOCUMENT, Entry, document, read

PACKAGE = Path(gpuwarden.__file__).parent
LINE_COLUMNS = 78  # journalctl puts two characters before each
SKELETON = """\
-- {message_id}
Subject: What happened, in a few words, with @FIELDS@ that every tell() of it gives
Defined-By: gpuwarden
Support: file:///usr/share/doc/gpuwarden
Documentation: man:gpuwarden(1)

What happened, and why.

What to do. "Nothing is to be done." where that is so.
"""
# What those who tell events on behalf of others add by themselves: by the last word of the call.
# A plain tell() adds nothing; a method tell() is a card's, which names the card.
OF_A_CARD = frozenset({"GPU", "GPU_UUID"})
WRAPPED = {"_say": frozenset({"STATE_NEW", "REASON"})}


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return read(CATALOGUE.read_text(encoding="ascii"))


def test_every_event_has_an_entry_and_every_entry_an_event(entries: list[Entry]) -> None:
    explained = {each.message_id for each in entries}
    told = {event.message_id for event in Event}
    missing = [SKELETON.format(message_id=each) for each in sorted(told - explained)]
    assert not missing, f"add to {CATALOGUE}:\n\n" + "\n".join(missing)
    assert not explained - told, f"take out of {CATALOGUE}: {sorted(explained - told)}"
    assert len(explained) == len(entries), "an entry is there twice"


def test_no_two_events_share_an_id_or_a_name() -> None:
    assert len({event.message_id for event in Event}) == len(Event.__members__)
    assert len({event.label for event in Event}) == len(Event.__members__)


def test_an_entry_says_what_happened_and_what_to_do_in_plain_lines(entries: list[Entry]) -> None:
    text = CATALOGUE.read_text(encoding="ascii")
    assert [
        line for line in text.splitlines() if len(line) > LINE_COLUMNS and line[:1] != "#"
    ] == []
    for each in entries:
        assert list(each.head) == ["Subject", "Defined-By", "Support", "Documentation"], each
        assert each.head["Defined-By"] == "gpuwarden"
        assert len(each.paragraphs) >= 2, f"{each.head['Subject']}: say what happened, what to do"


def test_commands_that_an_entry_names_exist(entries: list[Entry]) -> None:
    for each in entries:
        named = re.findall(r"(?<![/\w])gpuwarden ([a-z]+)", " ".join(each.paragraphs))
        assert set(named) <= set(COMMANDS), each.head["Subject"]


def test_the_documented_table_is_that_of_the_catalogue(entries: list[Entry]) -> None:
    assert DOCUMENT.read_text(encoding="ascii") == document(entries), (
        "python -m tools.events_table writes it"
    )


@dataclass(frozen=True)
class Site:
    """A place of the source where an event is told."""

    place: str
    event: Event
    given: frozenset[str]
    is_open: bool  # gives more than can be seen here: tests see it when it runs


def sites() -> Iterator[Site]:
    for file in sorted(PACKAGE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "Event." not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                yield from _told(node, f"{file.relative_to(PACKAGE.parent)}:{node.lineno}")


def _told(call: ast.Call, place: str) -> Iterator[Site]:
    keywords = {each.arg for each in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    added = WRAPPED.get(name, frozenset())
    if name == "tell" and isinstance(call.func, ast.Attribute):
        added = OF_A_CARD
    is_open = None in keywords or (name != "tell" and name not in WRAPPED)
    given = frozenset(each for each in keywords if each) | added
    for argument in call.args:
        for event in filter(None, map(_event, ast.walk(argument))):
            yield Site(place, event, given, is_open)


def _event(node: ast.AST) -> Event | None:
    match node:
        case ast.Attribute(value=ast.Name(id="Event"), attr=name):
            return Event.__members__.get(name)
    return None


def test_each_place_that_tells_an_event_gives_what_its_entry_fills_in() -> None:
    found = list(sites())
    assert len(found) > 30
    wrong = [
        f"{site.place}: {problem}"
        for site in found
        if not site.is_open and (problem := lacking(site.event, site.given))
    ]
    assert not wrong, "\n".join(wrong)


def test_each_event_is_told_somewhere() -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))
    used = set(re.findall(r"\bEvent\.([A-Z_]+)\b", source))
    assert set(Event.__members__) - used == set()
