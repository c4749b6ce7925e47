# SPDX-License-Identifier: Apache-2.0
"""Who uses ``gpuwarden top``: what is looked at, what is asked, and what a key does. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from gpuwarden.cli.live.board import Thing, card_of, things
from gpuwarden.cli.output import duration
from gpuwarden.control.states import GuardData

Verb = Literal["start", "restart", "drain", "override", "clear-override"]
OVERRIDE_SECONDS = (60, 300, 600, 1800, 3600, 4 * 3600, 86400)  # the last is the longest allowed
_TEN_MINUTES = 2
WORKER_KEYS: dict[str, Verb] = {"s": "start", "r": "restart", "d": "drain"}
_ASKED = {
    "start": "Start worker {}, or give it work again?",
    "restart": "Restart worker {}? It finishes what it has first.",
    "drain": "Drain worker {}? It stays up and gets no new work until it is started.",
}
_STATES = {"a": "alert", "c": "critical"}
UP, DOWN = frozenset({"up", "k"}), frozenset({"down", "j"})
_NO = frozenset({"n", "escape"})


class View(StrEnum):
    """What fills the screen."""

    BOARD = "board"
    DETAILS = "details"
    EVENTS = "events"
    HELP = "help"


VIEWS = {
    **dict.fromkeys(("question_mark", "h", "f1"), View.HELP),
    "e": View.EVENTS,
    "enter": View.DETAILS,
}


@dataclass(frozen=True)
class Order:
    """What an operator has decided: about a worker, or with override about a card."""

    verb: Verb
    number: int
    state: str = ""
    seconds: int = 0

    @property
    def text(self) -> str:
        """What is done, for people."""
        if self.verb == "override":
            return f"override of GPU {self.number}"
        if self.verb == "clear-override":
            return f"end of GPU {self.number}'s override"
        return f"{self.verb} of worker {self.number}"


@dataclass(frozen=True)
class Question:
    """What is asked before an order is given.

    :ivar verb: of a worker; "override": of a card, of which the time is chosen as well.
    :ivar time: which of OVERRIDE_SECONDS.
    """

    verb: Verb
    number: int
    time: int = _TEN_MINUTES

    @property
    def seconds(self) -> int:
        """How long an override will last."""
        return OVERRIDE_SECONDS[self.time]

    @property
    def lines(self) -> tuple[str, str]:
        """The question, and which keys answer it."""
        if self.verb == "override":
            return (
                f"Cool GPU {self.number} for {duration(self.seconds)} as if it were hot?",
                "a as in alert  c as in critical  +/- longer/shorter  x end an override  Esc no",
            )
        return _ASKED[self.verb].format(self.number), "y yes  n no"


@dataclass(frozen=True)
class Session:
    """The user's side of the screen."""

    view: View = View.BOARD
    chosen: Thing | None = None
    offset: int = 0
    question: Question | None = None
    message: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Pressed:
    """What came of a key."""

    session: Session
    order: Order | None = None
    quits: bool = False
    wants_details: bool = False


def press(session: Session, key: str, data: GuardData) -> Pressed:
    """What a key does, by its name: a letter, ``up``, ``enter``, ``escape`` ..."""
    session = _still_there(session, data)
    if session.question is not None:
        return _answer(session, session.question, key)
    session = replace(session, message=("", ""))
    if key == "q":
        return Pressed(session, quits=True)
    if session.view is not View.BOARD:
        return Pressed(_in_a_text(session, key))
    if key in UP | DOWN:
        session = _moved(session, -1 if key in UP else 1, data)
    elif key in WORKER_KEYS or key == "o":
        session = _asked(session, key, data)
    elif key in VIEWS and (key != "enter" or session.chosen is not None):
        session = replace(session, view=VIEWS[key], offset=0)
    return Pressed(session, wants_details=session.view is View.DETAILS)


def _still_there(session: Session, data: GuardData) -> Session:
    """With something chosen that is there."""
    there = things(data)
    if session.chosen in there:
        return session
    return replace(session, chosen=there[0] if there else None)


def _moved(session: Session, step: int, data: GuardData) -> Session:
    there = things(data)
    if session.chosen is None:
        return session
    place = there.index(session.chosen) + step
    return replace(session, chosen=there[max(0, min(place, len(there) - 1))])


def _in_a_text(session: Session, key: str) -> Session:
    """Scrolls, or goes back to the board."""
    steps = {**dict.fromkeys(UP, -1), **dict.fromkeys(DOWN, 1), "pageup": -10, "pagedown": 10}
    if key in steps:
        return replace(session, offset=max(0, session.offset + steps[key]))
    if key == "home":
        return replace(session, offset=0)
    if key in {"escape", "backspace", *VIEWS}:
        return replace(session, view=View.BOARD, offset=0)
    return session


def _asked(session: Session, key: str, data: GuardData) -> Session:
    thing = session.chosen
    if key == "o":
        gpu = card_of(thing, data)
        if gpu is None:
            return replace(session, message=("no card is chosen", "warn"))
        return replace(session, question=Question("override", gpu))
    if thing is None or thing.kind != "worker":
        words = f"{WORKER_KEYS[key]} is of a worker: choose one with the arrows"
        return replace(session, message=(words, "warn"))
    return replace(session, question=Question(WORKER_KEYS[key], thing.number))


def _answer(session: Session, question: Question, key: str) -> Pressed:
    closed = replace(session, question=None, message=("", ""))
    if key in _NO or key in {"q", "ctrl+c"}:
        return Pressed(replace(closed, message=("nothing was done", "")))
    if question.verb == "override":
        if key in _STATES:
            order = Order("override", question.number, _STATES[key], question.seconds)
            return Pressed(closed, order)
        if key == "x":
            return Pressed(closed, Order("clear-override", question.number))
        step = {"plus": 1, "equals_sign": 1, "minus": -1, "up": 1, "down": -1}.get(key, 0)
        time = max(0, min(question.time + step, len(OVERRIDE_SECONDS) - 1))
        return Pressed(replace(session, question=replace(question, time=time)))
    if key == "y":
        return Pressed(closed, Order(question.verb, question.number))
    return Pressed(session)
