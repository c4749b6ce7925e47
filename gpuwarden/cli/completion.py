# SPDX-License-Identifier: Apache-2.0
"""What a shell offers after Tab: argcomplete asks the tree of arguments, and this the node."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from gpuwarden import names
from gpuwarden.cli.about import ACTIONS
from gpuwarden.cli.exits import CommandError
from gpuwarden.cli.orphans import EXPECTED
from gpuwarden.cli.service import get_status
from gpuwarden.cli.thermal_sources import known_cards
from gpuwarden.control.snapshot import SnapshotError, read_snapshot
from gpuwarden.control.states import PlanData
from gpuwarden.systemd.events import Event

Words = Mapping[str, str]
Completer = Callable[..., Words]

JOBS_OFFERED = 50
_WORKER_ACTIONS, _CARD_ACTIONS = (
    {written.split()[0]: what for written, what in ACTIONS[command]}
    for command in ("workers", "thermal")
)
_STATES = {"alert": "as if it were hot", "critical": "as if it were too hot"}
_SECONDS = {"600": "ten minutes", "3600": "an hour", "86400": "a day"}


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks, and end this process."""
    import argcomplete  # noqa: PLC0415  # no other run of the command needs it

    for action, completer in _completers(parser):
        action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks
    argcomplete.autocomplete(parser, always_complete_options=False)


def typed() -> list[str]:
    """The words before the one that is being typed, without the command's own name."""
    line = os.environ.get("COMP_LINE", "")
    typed_so_far = line[: int(os.environ.get("COMP_POINT") or len(line))]
    words = typed_so_far.split()[1:]
    return words if typed_so_far[-1:].isspace() else words[:-1]


def _completers(
    parser: argparse.ArgumentParser, command: str = ""
) -> Iterator[tuple[argparse.Action, Completer]]:
    """Every argument of the tree whose values the node knows."""
    for action in parser._actions:  # argparse has no public way to look at a tree
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _completers(below, command or name)
            continue
        completer = _BY_ARGUMENT.get((command, action.dest)) or _BY_ARGUMENT.get(("", action.dest))
        if completer is not None:
            yield action, completer


def _workers(**_: object) -> Words:
    with suppress(SnapshotError):  # without a plan there are none to offer
        plan = read_snapshot(names.PLAN_FILE, PlanData).data
        return {str(each.number): f"on GPU {each.gpu_index}" for each in plan.workers}
    return {}


def _cards(**_: object) -> Words:
    return {str(index): f"GPU {index}" for index in known_cards()}


def _worker_words(**_: object) -> Words:
    """``gpuwarden workers ACTION N``."""
    words = [word for word in typed()[1:] if not word.startswith("-")]
    if not words:
        return _WORKER_ACTIONS
    is_of_one = len(words) == 1 and words[0] != "rolling-restart"
    return _workers() if is_of_one else {}


def _card_words(**_: object) -> Words:
    """``gpuwarden thermal [GPU]``, or an action with its GPU, state and seconds."""
    words = [word for word in typed()[1:] if not word.startswith("-")]
    match words:
        case []:
            return {**_CARD_ACTIONS, **_cards()}
        case [action] if action in _CARD_ACTIONS:
            return _cards()
        case ["override", _]:
            return _STATES
        case ["override", _, _] | ["release", _]:
            return _SECONDS
    return {}


def _orphans(**_: object) -> Words:
    with suppress(CommandError):  # whoever may not ask is told when he runs the command
        return {
            str(each.pid): f"{each.command} ({each.orphan_class}) on GPU {each.gpu}"
            for each in get_status().orphans
            if each.orphan_class not in EXPECTED
        }
    return {}


def _jobs(*, parsed_args: argparse.Namespace, **_: object) -> Words:
    from gpuwarden.cli.frontdoor import door_of  # noqa: PLC0415  # of this one argument alone

    action = getattr(parsed_args, "action", "")
    wanted = {"save": ("succeeded",), "cancel": ("queued", "running")}.get(action, ())
    query = "".join(f"&status={status}" for status in wanted)
    with suppress(CommandError):  # as for orphans
        reply = door_of(parsed_args).connect().ask("GET", f"/v1/jobs?limit={JOBS_OFFERED}{query}")
        return {each["id"]: each["status"] for each in reply.document.get("data", [])}
    return {}


def _events(**_: object) -> Words:
    return {event.label: "" for event in Event}


# By command and argument; "" is any command.
_BY_ARGUMENT: dict[tuple[str, str], Completer] = {
    ("workers", "words"): _worker_words,
    ("thermal", "words"): _card_words,
    ("reap", "pid"): _orphans,
    ("jobs", "ids"): _jobs,
    ("logs", "event"): _events,
    ("", "worker"): _workers,
    ("", "gpu"): _cards,
    ("", "prove_actuators"): _cards,
}
