# SPDX-License-Identifier: Apache-2.0
"""What is known of one card or worker, as ``gpuwarden thermal`` and ``workers`` tell it."""

import textwrap

from gpuwarden.cli.exits import CommandError
from gpuwarden.cli.live.board import Thing
from gpuwarden.cli.live.lines import Line, line
from gpuwarden.cli.output import UNKNOWN, gibibytes, unix_now
from gpuwarden.cli.status_screen import clock, lasting
from gpuwarden.cli.thermal_screen import entry_lines, headline
from gpuwarden.cli.thermal_sources import look
from gpuwarden.control.states import GuardData


def details(thing: Thing, data: GuardData, encoding: str, columns: int) -> list[Line]:
    """All lines of it, wrapped to so many columns; asks the card's thermal guard."""
    now = unix_now()
    found = (
        worker_details(thing.number, data)
        if thing.kind == "worker"
        else card_details(thing.number, now, encoding, columns)
    )
    return [*found, line(f"  as of {clock(now, now)}; Esc and Enter look again")]


def card_details(index: int, now: float, encoding: str, columns: int) -> list[Line]:
    """What ``gpuwarden thermal`` tells of a card, or why nobody does."""
    try:
        (heat,) = look(index)
    except CommandError as error:
        return [line((each, "bad")) for each in textwrap.wrap(str(error), columns)]
    before, state, kind, behind = headline(heat, now)
    entries = entry_lines(heat, now, encoding, columns)
    return [line(before, (state, kind), behind), *(line(each) for each in entries)]


def worker_details(number: int, data: GuardData) -> list[Line]:
    """Every property of a worker, by the names that ``gpuwarden workers --json`` has."""
    for worker in data.workers:
        if worker.number == number:
            properties = worker.model_dump(mode="json", exclude_none=True)
            width = max(map(len, properties))
            return [
                line(f"  {name:<{width}}  {_told(name, value)}")
                for name, value in properties.items()
            ]
    return [line((f"there is no worker {number} any more", "warn"))]


def _told(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{part} {_told(part, each)}" for part, each in value.items())
    if isinstance(value, int) and name.endswith("_bytes"):
        return f"{gibibytes(value)} GiB"
    if isinstance(value, int) and name == "since":
        return f"for {lasting(value, unix_now())}"
    return UNKNOWN if value in ("", None) else str(value)
