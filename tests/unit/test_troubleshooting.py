# SPDX-License-Identifier: Apache-2.0
"""docs/troubleshoot.md quotes the journal as the service writes it."""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import gpuwarden
from gpuwarden.cli.live.board import SMALLEST
from gpuwarden.cli.main import COMMANDS
from gpuwarden.systemd.events import Event
from tools.events_table import CATALOGUE, FIELD, read

PACKAGE = Path(gpuwarden.__file__).parent
DOCUMENT = (PACKAGE.parent / "docs" / "troubleshoot.md").read_text(encoding="utf-8")
# What a guard puts before each thing that it tells of its card.
OF_A_CARD = r"(GPU \d+: )?"
# A text of nothing but that would fit everything.
VAGUE = (r"GPU\ (.*):\ (.*)", r"worker\ (.*):\ (.*)", r"worker\ (.*)")
LEAST_WORDS = 2  # letters of its own


@dataclass(frozen=True)
class Quote:
    """A row of the page: a line of the journal and the event that it is."""

    line: str
    event: str


def quotes() -> list[Quote]:
    rows = re.findall(r"^\| .* \| `([^|]+)` \| `([a-z-]+)` \| .* \|$", DOCUMENT, re.MULTILINE)
    return [Quote(*row) for row in rows]


@cache
def sources() -> list[str]:
    """All modules."""
    return [file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py"))]


@cache
def patterns(text: str) -> list[str]:
    """What a module's texts come to."""
    return [_pattern(node) for node in ast.walk(ast.parse(text))]


@cache
def told(event: Event) -> list[re.Pattern[str]]:
    """What the modules that tell an event write, what they fill in left open; and its subject."""
    texts = [text for text in sources() if f"Event.{event.name}" in text]
    written = [pattern for text in texts for pattern in patterns(text)]
    (subject,) = (
        each.head["Subject"]
        for each in read(CATALOGUE.read_text(encoding="ascii"))
        if each.message_id == event.message_id
    )
    explained = FIELD.sub("\0", subject)
    known = (*filter(None, written), re.escape(explained).replace("\0", "(.+)"))
    return [re.compile(OF_A_CARD + each) for each in known]


def _pattern(node: ast.AST) -> str:
    """An expression for what a text in the source comes to; empty for what is none."""
    if not isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
        return ""
    pattern = _open_ended(node)
    words = re.sub(r"\(\.\*\)|[^A-Za-z]", "", pattern)
    return "" if pattern in VAGUE or len(words) < LEAST_WORDS else pattern


def _open_ended(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(value)):
            return re.escape(value)
        case ast.JoinedStr(values=values):
            return "".join(map(_open_ended, values))
        case ast.FormattedValue(value=ast.IfExp(body=body, orelse=other)):
            return f"({_open_ended(body)}|{_open_ended(other)})"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _open_ended(left) + _open_ended(right)
    return "(.*)"


def test_there_is_much_to_find() -> None:
    assert len(quotes()) >= 40
    assert len({each.event for each in quotes()}) >= 35


@pytest.mark.parametrize("line", ["so", "GPU 1: whatever", "worker 1: whatever"])
def test_what_nobody_writes_is_no_event(line: str) -> None:
    assert [event.name for event in Event for each in told(event) if each.fullmatch(line)] == []


@pytest.mark.parametrize("quote", quotes(), ids=lambda each: str(each.line[:30]))
def test_each_line_is_one_that_the_service_writes(quote: Quote) -> None:
    event = next(each for each in Event if each.label == quote.event)
    assert any(each.fullmatch(quote.line) for each in told(event)), (
        f"{quote.line!r} is nothing that {event.name} says"
    )


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("top needs a terminal for its input and its output", "cli/top.py"),
        ("You may not see this", "words.js"),
        ("The service isn't running", "words.js"),
    ],
)
def test_what_a_screen_says_is_quoted_as_it_says_it(words: str, source: str) -> None:
    folder = PACKAGE if source.endswith(".py") else PACKAGE.parent / "packaging" / "cockpit"
    assert words in (folder / source).read_text(encoding="utf-8")
    assert words in DOCUMENT


def test_the_least_size_of_the_live_screen_is_the_one_told() -> None:
    assert f"needs {SMALLEST.columns} x {SMALLEST.rows}" in DOCUMENT


def test_commands_that_it_names_exist() -> None:
    named = set(re.findall(r"`gpuwarden ([a-z]+)", DOCUMENT))
    assert named
    assert named <= set(COMMANDS)


def test_the_events_that_ask_for_something_are_all_there() -> None:
    """An event whose entry ends in anything but "Nothing is to be done" has its symptom here."""
    label = {event.message_id: event.label for event in Event}
    wanted = {
        label[each.message_id]
        for each in read(CATALOGUE.read_text(encoding="ascii"))
        if not each.paragraphs[-1].startswith("Nothing is to be done")
    }
    missing = wanted - {each.event for each in quotes()}
    assert missing == set()
