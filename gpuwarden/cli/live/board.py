# SPDX-License-Identifier: Apache-2.0
"""The main view of ``gpuwarden top``: cards, workers, queue, jobs, events. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gpuwarden.cli.advice import advice
from gpuwarden.cli.known import Known
from gpuwarden.cli.live.cards import Paper, compact_card, full_card
from gpuwarden.cli.live.lines import Line, Size, line
from gpuwarden.cli.live.trail import Trail
from gpuwarden.cli.output import UNKNOWN, gibibytes, table
from gpuwarden.cli.status_screen import (
    LEVEL_COLOURS,
    answered_words,
    clock,
    lasting,
    orphan_words,
    state_word,
    unknown_holders,
    waiting_words,
)
from gpuwarden.cli.workers import worker_colour, worker_note
from gpuwarden.control.states import GatewayJobs, GuardData, WorkerStatus

SMALLEST = Size(64, 16)
REASONS_SHOWN = 2
EVENTS_AT_LEAST = 2  # with their title: below that, cards are drawn on one line each
_WORKERS = ("WORKER", "STATE", "FOR", "GPU", "VRAM", "REQUESTS", "FAILED", "RESTARTS")


@dataclass(frozen=True, order=True)
class Thing:
    """A card or a worker: what a key can be about. Cards come first."""

    kind: str
    number: int


def gpu_thing(index: int) -> Thing:
    """A card."""
    return Thing("gpu", index)


def worker_thing(number: int) -> Thing:
    """A worker."""
    return Thing("worker", number)


def things(data: GuardData) -> list[Thing]:
    """All that can be chosen, in the order of the screen."""
    cards = [gpu_thing(gpu.index) for gpu in data.gpus]
    return cards + [worker_thing(worker.number) for worker in data.workers]


def card_of(thing: Thing | None, data: GuardData) -> int | None:
    """The card that it is, or that the worker is on."""
    if thing is None or thing.kind == "gpu":
        return thing.number if thing else None
    return next((each.gpu for each in data.workers if each.number == thing.number), None)


@dataclass(frozen=True)
class Seen:
    """What there is to show.

    :ivar error: why the last look found nothing; then ``known`` is from the look before.
    """

    known: Known
    trail: Trail
    error: str = ""


def board(seen: Seen, chosen: Thing | None, size: Size, paper: Paper) -> list[Line]:
    """The lines that fit into ``size``, of which the last ones are events."""
    top = _head(seen, paper) + _why(seen)
    bottom = _requests(seen, paper.now_unix_seconds) + _orphans(seen, paper.now_unix_seconds)
    room = size.rows - len(top) - len(bottom)
    middle = _things(seen, chosen, room, paper)
    lines = [*top, *middle, *bottom]
    left = size.rows - len(lines)
    return lines + _events(seen, left, paper.now_unix_seconds)


def event_lines(data: GuardData, now: float) -> list[Line]:
    """All events that the supervisor remembers, the last one first."""
    return [
        line(
            (
                f"  {clock(each.unix_microseconds / 1e6, now)}  {each.message}",
                LEVEL_COLOURS.get(each.level, ""),
            )
        )
        for each in reversed(data.events)
    ]


def _head(seen: Seen, paper: Paper) -> list[Line]:
    data = seen.known.data
    word, kind = state_word(seen.known)
    simulated = " SIMULATED cards," if data.simulated else ""
    ready = f",{simulated} {data.workers_ready} of {data.workers_total} workers ready"
    title = f"gpuwarden {data.version} is "
    time = clock(paper.now_unix_seconds, paper.now_unix_seconds)
    gap = paper.columns - len(title) - len(word) - len(ready) - len(time)
    return [line((title, "strong"), (word, kind), ready, " " * max(gap, 1), time)]


def _why(seen: Seen) -> list[Line]:
    """What is amiss, and the first thing that would help."""
    known = seen.known
    if seen.error:
        return [line((f"  NOTHING NEW: {seen.error}", "bad"))]
    reasons = [f"  because: {each}" for each in known.data.reasons]
    if known.caveat and not known.is_down:
        reasons.insert(0, f"  {known.caveat}")
    lines = [line((each, "warn")) for each in reasons[:REASONS_SHOWN]]
    if len(reasons) > REASONS_SHOWN:
        lines.append(line(f"  and {len(reasons) - REASONS_SHOWN} more: gpuwarden status"))
    for command, what in advice(known.data, live=known.is_live, is_mended=known.is_mended)[:1]:
        lines.append(line("  would help: ", (command, "strong"), f"  # {what}"))
    return lines


def _things(seen: Seen, chosen: Thing | None, room: int, paper: Paper) -> list[Line]:
    """Cards and workers; those round the chosen one where there isn't room for all."""
    data, origins = seen.known.data, seen.known.origins
    workers = [_title("Workers", origins.workers), *_workers(data, chosen, paper)]
    all_cards = {gpu.index for gpu in data.gpus}
    cards: list[Line] = []
    for in_full in (all_cards, {card_of(chosen, data)}, set[int | None]()):
        cards = [_title("Cards", origins.cards), *_cards(seen, chosen, in_full, paper)]
        if len(cards) + len(workers) + EVENTS_AT_LEAST <= room:
            break
    return _window([*cards, *workers], room)


def _cards(
    seen: Seen, chosen: Thing | None, in_full: Collection[int | None], paper: Paper
) -> list[Line]:
    lines: list[Line] = []
    for gpu in seen.known.data.gpus:
        form = full_card if gpu.index in in_full else compact_card
        samples = seen.trail.get(gpu.index, ())
        lines += form(gpu, samples, paper, chosen=gpu_thing(gpu.index) == chosen)
    return lines or [line("  no cards known")]


def _window(lines: Sequence[Line], room: int) -> list[Line]:
    """So many of the lines, the chosen one among them, and how many are left out."""
    if len(lines) <= room:
        return list(lines)
    place = next((n for n, each in enumerate(lines) if each.chosen), 0)
    room -= 1
    start = max(0, min(place - room // 2, len(lines) - room))
    hidden = f"  ... {len(lines) - room} more lines: move with the arrows, or enlarge the terminal"
    return [*lines[start : start + room], line(hidden)]


def _title(text: str, origin: str) -> Line:
    return line((text, "strong"), f" ({origin})" if origin else "")


def _workers(data: GuardData, chosen: Thing | None, paper: Paper) -> list[Line]:
    if not data.workers:
        return [line("  no workers planned")]
    rows = [_worker(each, paper.now_unix_seconds) for each in data.workers]
    header, *shown = table(_WORKERS, rows)
    lines = [line(header)]
    for worker, row in zip(data.workers, shown, strict=True):
        is_chosen = worker_thing(worker.number) == chosen
        text = f">{row[1:]}" if is_chosen else row
        note = worker_note(worker)
        pieces = (text, worker_colour(worker)), (f"  {note}" if note else "")
        lines.append(line(*pieces, chosen=is_chosen))
    return lines


def _worker(worker: WorkerStatus, now: float) -> tuple[str, ...]:
    reserved = worker.vram_reserved_bytes
    return (
        str(worker.number),
        worker.state,
        lasting(worker.since, now),
        str(worker.gpu),
        UNKNOWN if reserved is None else f"{gibibytes(reserved)} GiB",
        str(worker.requests),
        str(worker.failures),
        str(worker.restarts),
    )


def _requests(seen: Seen, now: float) -> list[Line]:
    gateway, origin = seen.known.data.gateway, seen.known.origins.gateway
    behind = f" ({origin})" if origin else ""
    if gateway is None:
        return [
            line(("Queue", "strong"), f"{behind}: the gateway has not published its state"),
        ]
    pause = "bad" if gateway.paused or gateway.paused_until is not None else ""
    return [
        line(("Queue", "strong"), f"{behind}: ", (waiting_words(gateway, now), pause)),
        line(f"  {answered_words(gateway)}"),
        line(("Jobs", "strong"), f": {_jobs(gateway.jobs)}"),
    ]


def _jobs(jobs: GatewayJobs | None) -> str:
    if jobs is None:
        return "none are kept"
    if jobs.problem:
        return f"none can be kept: {jobs.problem}"
    return (
        f"{jobs.queued} waiting, {jobs.running} running, {jobs.succeeded} done, "
        f"{jobs.failed} failed, {jobs.cancelled} cancelled; "
        f"{gibibytes(jobs.stored_bytes)} of {gibibytes(jobs.limit_bytes)} GiB"
    )


def _orphans(seen: Seen, now: float) -> list[Line]:
    """One line, and only where somebody holds memory who should not, or nobody knows."""
    data = seen.known.data
    told = [orphan_words(each, now) for each in data.orphans] + unknown_holders(data)
    if not told:
        return []
    more = f"; {len(told) - 1} more: gpuwarden orphans" if len(told) > 1 else ""
    return [line(("Orphans", "strong"), ": ", (f"{told[0]}{more}", "warn"))]


def _events(seen: Seen, rows: int, now: float) -> list[Line]:
    data = seen.known.data
    if rows < EVENTS_AT_LEAST or not data.events:
        return []
    title = _title("Last events", seen.known.origins.rest)
    return [title, *reversed(event_lines(data, now)[: rows - 1])]
