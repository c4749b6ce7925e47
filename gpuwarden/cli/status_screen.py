# SPDX-License-Identifier: Apache-2.0
"""The screen of ``gpuwarden status``: is it healthy, why not, what would help, and the figures.

Pure, but for the width of the terminal and the local time zone.
"""

from collections.abc import Sequence
from datetime import datetime

from gpuwarden.cli.advice import advice
from gpuwarden.cli.gpus import card_colour
from gpuwarden.cli.known import Known
from gpuwarden.cli.output import (
    UNKNOWN,
    coloured,
    duration,
    fitted,
    gibibytes,
    number,
    of,
    table,
)
from gpuwarden.cli.workers import worker_colour, worker_notes
from gpuwarden.control.host import TuningData
from gpuwarden.control.states import (
    GatewayData,
    GatewayJobs,
    GuardData,
    HappenedEvent,
    Orphan,
    ThermalData,
    WorkerStatus,
)
from gpuwarden.text import one_line
from gpuwarden.values import ServiceState

SCREEN_LINES = 24
ORPHANS_SHOWN = 3
EVENTS_SHOWN_AT_LEAST = 2  # they are what the rest leaves room for
_STATE_COLOURS = {ServiceState.RUNNING: "good", ServiceState.DEGRADED: "bad"}
LEVEL_COLOURS = {"error": "bad", "warning": "warn"}
_WORKERS = ("WORKER", "STATE", "FOR", "GPU", "PID", "PROCESSES", "REQUESTS", "FAILED", "RESTARTS")
_CARDS = ("GPU", "STATE", "FOR", "TEMP C", "HBM C", "WATTS", "VRAM GiB", "FRAG", "NAME")


def screen(known: Known, now_unix_seconds: float, height: int = SCREEN_LINES) -> list[str]:
    """The lines; as many events as ``height`` leaves room for, with a line for the prompt."""
    data = known.data
    parts = [
        [_headline(known), *_why(known), *_helpful(known)],
        _workers(known, now_unix_seconds),
        _cards(known, now_unix_seconds),
        _requests(data.gateway, known.origins.gateway, now_unix_seconds)
        + _orphans(known, now_unix_seconds)
        + ([_titled("Host", _host(data.tuning))] if data.tuning else []),
    ]
    left = height - 1 - sum(map(len, parts))
    apart = left >= len(parts) + 1 + EVENTS_SHOWN_AT_LEAST  # room for empty lines and a title
    room = max(left - 1 - (len(parts) if apart else 0), EVENTS_SHOWN_AT_LEAST)
    parts.append(_events(data.events[-room:], known.origins.rest, now_unix_seconds))
    lines: list[str] = []
    for part in parts:
        lines += ["", *part] if apart and lines and part else part
    return lines


def clock(unix_seconds: float, now_unix_seconds: float) -> str:
    """The local time; with its date where that is another than now's."""
    local = datetime.fromtimestamp(unix_seconds).astimezone()
    same_day = local.date() == datetime.fromtimestamp(now_unix_seconds).astimezone().date()
    return f"{local:%H:%M:%S}" if same_day else f"{local:%Y-%m-%d %H:%M:%S}"


def _headline(known: Known) -> str:
    simulated = " with SIMULATED cards" if known.data.simulated else ""
    return f"gpuwarden {one_line(known.data.version)} is {coloured(*state_word(known))}{simulated}"


def state_word(known: Known) -> tuple[str, str]:
    """The state of the service, and how it is painted."""
    if known.is_down:
        return "NOT RUNNING", "bad"
    state = known.data.state
    return state.upper(), _STATE_COLOURS.get(state, "warn")


def _why(known: Known) -> list[str]:
    aside = [f"  {known.caveat}"] if known.caveat and not known.is_down else []
    return [
        fitted(line) for line in (*aside, *(f"  because: {each}" for each in known.data.reasons))
    ]


def _helpful(known: Known) -> list[str]:
    helpful = advice(known.data, live=known.is_live, is_mended=known.is_mended)
    if not helpful:
        return []
    rows = [(command, f"# {what}") for command, what in helpful]
    return [coloured("What would help", "strong"), *map(fitted, table(("", ""), rows)[1:])]


def _titled(title: str, text: str, origin: str = "") -> str:
    """A title, what is to say behind it, and where that comes from."""
    because = f" ({origin})" if origin else ""
    line = fitted(f"{title}{because}: {text}" if text else f"{title}{because}")
    return line.replace(title, coloured(title, "strong"), 1)


def _workers(known: Known, now: float) -> list[str]:
    data = known.data
    count = f"{data.workers_ready} of {data.workers_total} ready"
    lines = [_titled("Workers", count, known.origins.workers)]
    if not data.workers:
        return [*lines, "  no workers planned"]
    header, *rows = table(_WORKERS, [_worker(each, now) for each in data.workers])
    lines.append(fitted(header))
    for each, row in zip(data.workers, rows, strict=True):
        lines.append(coloured(fitted(row), worker_colour(each)))
    return lines + worker_notes(data.workers)


def _worker(worker: WorkerStatus, now: float) -> tuple[str, ...]:
    depth = f" ({worker.process_depth} deep)" if worker.process_depth else ""
    return (
        str(worker.number),
        worker.state,
        lasting(worker.since, now),
        str(worker.gpu),
        str(worker.main_pid) if worker.main_pid else UNKNOWN,
        f"{worker.process_count}{depth}",
        str(worker.requests),
        str(worker.failures),
        str(worker.restarts),
    )


def _cards(known: Known, now: float) -> list[str]:
    data = known.data
    lines = [_titled("Cards", "", known.origins.cards)]
    if not data.gpus:
        return [*lines, "  no cards known"]
    rows = [_card(card, fragmentation(data, card.index), now) for card in data.gpus]
    header, *shown = table(_CARDS, rows)
    lines.append(fitted(header))
    for card, row in zip(data.gpus, shown, strict=True):
        lines.append(coloured(fitted(row), card_colour(card)))
    return lines + [
        fitted(f"  gpu {card.index}: {card.reason}") for card in data.gpus if card.reason
    ]


def _card(card: ThermalData, fragmented: float | None, now: float) -> tuple[str, ...]:
    return (
        str(card.index),
        card.state,
        lasting(card.since, now),
        number(card.temperature_celsius),
        number(card.memory_temperature_celsius),
        of(number(card.power_watts), number(card.power_limit_watts)),
        of(gibibytes(card.vram_used_bytes), gibibytes(card.vram_total_bytes)),
        UNKNOWN if fragmented is None else f"{fragmented:.0%}",
        card.name.removeprefix("NVIDIA "),
    )


def fragmentation(data: GuardData, gpu_index: int) -> float | None:
    """The share of what the card's workers have reserved that no tensor uses; None: unknown."""
    workers = [each for each in data.workers if each.gpu == gpu_index]
    known = [
        (each.vram_reserved_bytes, each.vram_allocated_bytes)
        for each in workers
        if each.vram_reserved_bytes and each.vram_allocated_bytes is not None
    ]
    reserved = sum(pair[0] or 0 for pair in known)
    allocated = sum(pair[1] or 0 for pair in known)
    return 1 - allocated / reserved if reserved else None


def _requests(gateway: GatewayData | None, origin: str, now: float) -> list[str]:
    if gateway is None:
        return [_titled("Requests", "the gateway has not published its state", origin)]
    waiting = f"{waiting_words(gateway, now)}{_jobs(gateway.jobs)}"
    return [_titled("Requests", waiting, origin), f"  {answered_words(gateway)}"]


def waiting_words(gateway: GatewayData, now: float) -> str:
    """How many requests wait, and whether they are let in."""
    return f"{gateway.queue_depth} of {gateway.queue_limit} waiting{_paused(gateway, now)}"


def answered_words(gateway: GatewayData) -> str:
    """What has become of the requests since the front door started."""
    mean = gateway.mean_response_seconds
    timing = "" if mean is None else f", {mean:.2f} s on average"
    return (
        f"{gateway.completed} answered{timing}, {gateway.failed} failed, "
        f"{gateway.rejected} refused, {gateway.retried} retried"
    )


def _jobs(jobs: GatewayJobs | None) -> str:
    """The durable jobs that are not finished, and those that failed; nothing while there are none.

    That none can be kept is among the reasons of the state.
    """
    if jobs is None:
        return ""
    counts = {"waiting": jobs.queued, "running": jobs.running, "failed": jobs.failed}
    told = [f"{count} {word}" for word, count in counts.items() if count]
    return f"; jobs: {', '.join(told)}" if told else ""


def _paused(gateway: GatewayData, now: float) -> str:
    if gateway.paused_until is not None:
        return f", PAUSED by an operator for another {duration(gateway.paused_until / 1e6 - now)}"
    return ", PAUSED: too hot" if gateway.paused else ""


def _orphans(known: Known, now: float) -> list[str]:
    data, origin = known.data, known.origins.rest
    unknown = unknown_holders(data)
    lines = []
    if data.orphans:
        held = [each.vram_bytes for each in data.orphans if each.vram_bytes is not None]
        held_text = f", {gibibytes(sum(held))} GiB" if held else ""
        lines.append(_titled("Orphans", f"{len(data.orphans)}{held_text}", origin))
        for each in data.orphans[:ORPHANS_SHOWN]:
            lines.append(coloured(fitted(f"  {orphan_words(each, now)}"), "warn"))
        lines += [fitted(f"  {text}") for text in unknown]
        return lines
    return [_titled("Orphans", "; ".join(unknown) or "none", origin)]


def unknown_holders(data: GuardData) -> list[str]:
    """The cards of which nobody knows who holds their memory, and why."""
    return [f"unknown of GPU {gpu}: {why}" for gpu, why in sorted(data.scans.items()) if why]


def orphan_words(orphan: Orphan, now: float) -> str:
    """Who holds how much of which card."""
    return (
        f"PID {orphan.pid} {orphan.command} ({orphan.orphan_class}) holds "
        f"{gibibytes(orphan.vram_bytes)} GiB of GPU {orphan.gpu} for {lasting(orphan.since, now)}"
    )


def _host(tuning: TuningData) -> str:
    if tuning.untuned:
        return f"not tuned: {tuning.untuned}"
    profile = tuning.profile or "no profile"
    by = f" ({tuning.time_of_day})" if tuning.time_of_day else ""
    state = ", verified" if tuning.verified else ""
    note = tuning.fault or tuning.note
    return f"{profile} in force{by}{state}" + (f"; {note}" if note else "")


def _events(events: Sequence[HappenedEvent], origin: str, now: float) -> list[str]:
    if not events:
        return []
    lines = [_titled("Last events", "", origin)]
    for each in events:
        text = f"  {clock(each.unix_microseconds / 1e6, now)}  {each.message}"
        lines.append(coloured(fitted(text), LEVEL_COLOURS.get(each.level, "")))
    return lines


def lasting(since_unix_microseconds: int, now: float) -> str:
    """How long something has been as it is."""
    if not since_unix_microseconds:
        return UNKNOWN
    return duration(now - since_unix_microseconds / 1e6)
