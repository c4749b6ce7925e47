# SPDX-License-Identifier: Apache-2.0
"""The whole screen of ``gpuwarden top``, for each view and size. Pure."""

import textwrap
from collections.abc import Sequence

from gpuwarden.cli.live.board import SMALLEST, Seen, board, event_lines
from gpuwarden.cli.live.cards import Paper
from gpuwarden.cli.live.lines import Line, Size, fitting, line
from gpuwarden.cli.live.session import Session, View
from gpuwarden.text import one_line

KEYS = "arrows choose  Enter details  s start  r restart  d drain  o override  e events  ? help"
SHORT_KEYS = "Enter details s start r restart d drain o override ? help q quit"
MESSAGE_LINES = 4  # a refusal says why and who may, which is longer than 80 characters
TEXT_KEYS = "arrows scroll  Esc back  q quit"
KEYS_EXPLAINED = (
    ("up, down", "choose a card or a worker (also k and j)"),
    ("Enter", "details: all that is known of it"),
    ("s", "start the chosen worker, or give a drained one work again"),
    ("r", "restart it, once it has finished what it has"),
    ("d", "drain it: it stays up and gets no new work"),
    ("o", "cool the chosen card as if it were hot, or end that"),
    ("e", "all events that the supervisor remembers, the last first"),
    ("?", "this help"),
    ("q", "quit (also Ctrl-C)"),
)
HELP = (
    "Cards: state, temperature, power, its limit (in brackets the administrator's own",
    "while it is lowered), load, memory, each with the last five minutes as a",
    "small chart. > marks what keys are about.",
    "",
    *(f"  {key:<10} {what}" for key, what in KEYS_EXPLAINED),
    "",
    "Orders are asked about first, and need root, or the group gpuwarden and what",
    "polkit allows it. The same without this screen: gpuwarden status, gpuwarden",
    "workers, gpuwarden thermal. More: man gpuwarden-top.",
)


def screen(
    seen: Seen, session: Session, details: Sequence[Line], size: Size, paper: Paper
) -> list[Line]:
    """Exactly as many lines as the terminal has, each at most as long as it is wide."""
    if size.columns < SMALLEST.columns or size.rows < SMALLEST.rows:
        return fitting(_too_small(size), size)
    foot = _foot(session, size)
    body = Size(size.columns, size.rows - len(foot))
    if session.view is View.BOARD:
        lines = board(seen, session.chosen, body, paper)
    else:
        lines = _text(seen, session, details, body, paper)
    return fitting(lines, body) + fitting(foot, Size(size.columns, len(foot)))


def _foot(session: Session, size: Size) -> list[Line]:
    """What is asked or was done, and which keys there are."""
    if session.question is not None:
        question, keys = session.question.lines
        return [line((question, "strong")), line((keys, "strong"))]
    keys = TEXT_KEYS
    if session.view is View.BOARD:
        keys = f"{KEYS}  q quit" if len(KEYS) + 8 <= size.columns else SHORT_KEYS
    text, kind = session.message
    said = textwrap.wrap(one_line(text), size.columns)[:MESSAGE_LINES] or [""]
    return [*(line((each, kind)) for each in said), line((keys, "strong"))]


def _text(
    seen: Seen, session: Session, details: Sequence[Line], body: Size, paper: Paper
) -> list[Line]:
    """A long text from ``offset`` on, with its title."""
    if session.view is View.HELP:
        title, text = "Keys", [line(each) for each in HELP]
    elif session.view is View.EVENTS:
        title, text = "Events", event_lines(seen.known.data, paper.now_unix_seconds)
    else:
        chosen = session.chosen
        title, text = f"{chosen.kind} {chosen.number}" if chosen else "Details", list(details)
    room = body.rows - 1
    start = max(0, min(session.offset, len(text) - room))
    below = len(text) - start - room
    more = f"  ({below} more lines below)" if below > 0 else ""
    return [line((title, "strong"), more), *(text[start : start + room] or [line("  none")])]


def _too_small(size: Size) -> list[Line]:
    """In as few words as such a terminal may have room for."""
    needed = f"{SMALLEST.columns} x {SMALLEST.rows}"
    return [
        line((f"needs {needed}", "strong")),
        line(f"has {size.columns} x {size.rows}: enlarge it"),
        line("or q, then: gpuwarden status"),
    ]
