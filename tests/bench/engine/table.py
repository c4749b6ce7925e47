# SPDX-License-Identifier: Apache-2.0
"""The results as the documentation shows them: each goal, what was measured, whether it is met."""

from typing import Any

HEAD = ("| what | wanted | measured | |", "|---|---|---|---|")
# Of the research of 2026-11-20 on such a card, the same work: not measured in this run.
QUOTED = (
    ("four naive processes on the card: requests/s", "0.65"),
    ("transformers' `generate` of 32 at once: requests/s", "3.82"),
)
CORES_TOLD = 0.05
PART_OF = "of it"  # how a stage's name begins that is told within another one
# Issue "model engines": of one H200, whose floor is 1.82 ms. Other cards are judged by the ratio.
MOST_STEP_MILLISECONDS, H200_FLOOR_MILLISECONDS = 3.2, 1.82
Row = tuple[str, str, str, str]


def table_of(results: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    parts = (_naive, _floor, _speed, _memory, _killed, _fixed, _cards)
    rows = [cells for part in parts for cells in part(results)]
    lines = ["Random weights: speed alone, no medical meaning.", "", *HEAD]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return lines + _machine(results) + _remarks(results)


def _machine(results: dict[str, Any]) -> list[str]:
    """Which card it was: the goals are those of one H200."""
    machine = _part(results, "machine")
    if "card" not in machine:
        return []
    names = ("driver", "torch", "transformers", "cpus")
    rest = ", ".join(f"{name} {machine[name]}" for name in names if name in machine)
    return ["", f"Measured on: {machine['card']}, {rest}. The goals are those of one H200."]


def _floor(results: dict[str, Any]) -> list[Row]:
    floor = _part(results, "floor")
    if not floor:
        return []
    step = _part(results, "alone").get("milliseconds_per_step")
    return [
        row("floor: the card's bandwidth, TB/s", _over(floor.get("bytes_per_second"), 1e12)),
        row("floor: ms to read the text weights once", floor.get("milliseconds")),
        row(
            "alone: decode step over the floor (goal 1.5)",
            _over(step, floor.get("milliseconds")),
            most=MOST_STEP_MILLISECONDS / H200_FLOOR_MILLISECONDS,
        ),
    ]


def _naive(results: dict[str, Any]) -> list[Row]:
    naive = _part(results, "naive")
    if not naive:
        return []
    return [
        row("naive loop: requests", naive.get("requests")),
        row("naive loop: requests/s", naive.get("requests_per_second")),
        row("naive loop: p50 of a request, s", naive.get("p50_seconds")),
        row("naive loop: ms per step", naive.get("milliseconds_per_step")),
        *((f"{what} (quoted, not measured here)", "", value, "") for what, value in QUOTED),
    ]


def _speed(results: dict[str, Any]) -> list[Row]:
    alone, together, mixed = (_part(results, name) for name in ("alone", "together", "mixed"))
    int8 = _part(results, "int8")
    if not (alone or together or mixed):
        return []
    naive = _part(results, "naive").get("requests_per_second")
    rate, step = together.get("requests_per_second"), alone.get("milliseconds_per_step")
    return [
        row("alone: ms per decode step (goal 2.7)", step, most=MOST_STEP_MILLISECONDS),
        row("alone: p50 of a request, s", alone.get("p50_seconds"), most=0.60),
        row("alone, image in the request: p50, s", alone.get("p50_seconds_as_data_url")),
        row("together: requests/s", rate, least=25),
        row("together: requests/s over the naive loop's", _over(rate, naive)),
        row("together: p50, s", together.get("p50_seconds")),
        row("together: p95 over p50", _ratio(together, "p95_seconds", "p50_seconds"), most=2.5),
        row("together: upload, s", together.get("upload_seconds")),
        row("together: ms per step", together.get("milliseconds_per_step")),
        *_streams("together", together),
        row("mixed: requests", mixed.get("requests"), least=1000),
        row("mixed: failures", mixed.get("failures"), most=0),
        row("mixed: requests/s", mixed.get("requests_per_second")),
        *_streams("mixed", mixed),
        row("int8 cache: requests/s together", int8.get("requests_per_second")),
        row("int8 cache: ms per step alone", int8.get("alone", {}).get("milliseconds_per_step")),
    ]


def _streams(name: str, part: dict[str, Any]) -> list[Row]:
    return [
        row(f"{name}: gaps in streams, p50, ms", part.get("p50_gap_milliseconds")),
        row(f"{name}: gaps, p95, ms", part.get("p95_gap_milliseconds")),
        row(f"{name}: longest gap, ms", part.get("longest_gap_milliseconds"), most=60),
        row(f"{name}: gaps over 60 ms", part.get("gaps_over_60_milliseconds"), most=0),
    ]


def _memory(results: dict[str, Any]) -> list[Row]:
    mixed = _part(results, "mixed")
    after, before = mixed.get("memory_after") or {}, mixed.get("memory_before") or {}
    if "reserved_bytes" not in after:
        return []
    unused = after["reserved_bytes"] - after["peak_bytes"]
    int8 = _part(results, "int8").get("memory", {})
    return [
        row(
            "mixed: device allocations meanwhile", _moved(before, after, "num_device_alloc"), most=0
        ),
        row(
            "mixed: allocation retries meanwhile",
            _moved(before, after, "num_alloc_retries"),
            most=0,
        ),
        row("mixed: out of memory", after.get("num_ooms"), most=0),
        row(
            "inactive split over reserved",
            _ratio(after, "inactive_split_bytes", "reserved_bytes"),
            most=0.08,
        ),
        row("(reserved - peak) over reserved", unused / after["reserved_bytes"], most=0.08),
        row("reserved, GiB", after["reserved_bytes"] / 2**30),
        row("int8 cache: reserved, GiB", _over(int8.get("reserved_bytes"), 2**30)),
    ]


def _killed(results: dict[str, Any]) -> list[Row]:
    killed, cold = _part(results, "killed"), _part(results, "load_cold")
    rows = [row("load (exec to READY), cold, s", cold.get("seconds"))]
    if not killed:
        return rows if cold else []
    load = killed.get("load_seconds_warm")
    limit = None if load is None else load + 2
    full = killed.get("full_rate_of_answers_seconds_after_kill")
    return [
        *rows,
        row("load, warm, s", load),
        row("killed: requests without an answer", killed.get("failures"), most=0),
        row("killed: READY after, s", killed.get("ready_seconds_after_kill")),
        row("killed: first token after, s", killed.get("first_tokens_seconds_after_kill")),
        row("killed: first answer after, s", killed.get("first_answers_seconds_after_kill")),
        row(
            "killed: tokens as fast as before after, s",
            killed.get("full_rate_of_tokens_seconds_after_kill"),
        ),
        row("killed: answers as fast as before after, s", full, most=limit),
    ]


def _fixed(results: dict[str, Any]) -> list[Row]:
    fixed = _part(results, "reproducible")
    if not fixed:
        return []
    rows = [row("reproducible: ms per step, alone", fixed.get("milliseconds_per_step"))]
    return rows + of_states(fixed)


def of_states(fixed: dict[str, Any]) -> list[Row]:
    """One request's answers in any company and state of the card: how many were other ones."""
    rows = []
    for name in ("neighbours", "normal", "eco", "critical"):
        told = ", ".join(fixed.get(f"{name}_states_told", []))
        what = f"reproducible, {name}{f' (told: {told})' if told else ''}: "
        what += f"other answers of {text_of(fixed.get(f'{name}_answers'))}"
        rows.append(row(what, fixed.get(f"{name}_different"), most=0))
    return rows


def _cards(results: dict[str, Any]) -> list[Row]:
    rows = []
    for name in ("", "_small_images"):
        two, one = _part(results, f"two{name}"), _part(results, f"one{name}")
        if not two:
            continue
        what = "two cards" + (", small images" if name else "")
        ratio = _over(two.get("requests_per_second"), one.get("requests_per_second"))
        rows += [
            row(f"{what}: requests/s", two.get("requests_per_second")),
            row(f"{what}: requests/s of one of them", one.get("requests_per_second")),
            row(f"{what}: over one", ratio, least=None if name else 1.9),
            row(f"{what}: requests off even by", two.get("uneven"), most=None if name else 0.05),
            row(f"{what}: failures", two.get("failures"), most=0),
        ]
    return rows


def _remarks(results: dict[str, Any]) -> list[str]:
    """What was cut short or failed, and what the card read meanwhile."""
    found = []
    for name, part in results.items():
        if not isinstance(part, dict):
            continue
        for word in ("cut_short", "error"):
            if word in part:
                text = str(part[word]).splitlines()
                found.append(f"- {name}: {word.replace('_', ' ')}: {text[0][:200] if text else ''}")
        found += _parts_of_load(name, part) + _pauses(name, part) + _way(name, part)
        found += _cores(name, part)
    most = [part for part in results.values() if isinstance(part, dict) and "watts" in part]
    if most:
        watts = max(part["watts"]["most"] for part in most)
        celsius = max(part["celsius"]["most"] for part in most)
        limit = most[-1]["limit_watts"]
        found.append(f"- the card: at most {celsius:g} C, {watts:.0f} W of {limit:g} W")
    return ["", *found] if found else []


def _parts_of_load(name: str, part: dict[str, Any]) -> list[str]:
    seconds = part.get("phases") or {}
    told = ", ".join(f"{what} {value:.1f} s" for what, value in seconds.items())
    return [f"- {name}: the worker's load: {told}"] if told else []


def _pauses(name: str, part: dict[str, Any]) -> list[str]:
    causes = part.get("pauses", {}).get("causes", {})
    return [
        f"- {name}: pauses over 60 ms: {entry['count']} x {cause}"
        f" (longest {entry['longest_milliseconds']:.0f} ms)"
        for cause, entry in sorted(causes.items(), key=lambda pair: -pair[1]["count"])
    ]


def _way(name: str, part: dict[str, Any]) -> list[str]:
    """Where a request's time goes until its first token, on average, and how full the card was."""
    stages = part.get("stages_milliseconds")
    if not stages or "rows_in_use" not in part:
        return []
    upload = 1000 * part["mean_upload_seconds"]
    first = 1000 * part["mean_first_token_seconds"]
    inside = sum(took for stage, took in stages.items() if not stage.startswith(PART_OF))
    ways = {"upload": upload, "front door, queues, telling": first - upload - inside, **stages}
    told = ", ".join(f"{what} {took:.1f}" for what, took in ways.items())
    rows = f"{part['rows_in_use']:.1f} rows in use"
    return [f"- {name}: {rows}; ms until the first token, {first:.0f} in all: {told}"]


def _cores(name: str, part: dict[str, Any]) -> list[str]:
    if "requests_per_second" not in part:
        return []
    used = {what: cores for what, cores in part.get("cores", {}).items() if cores >= CORES_TOLD}
    told = ", ".join(f"{what.split()[0]} {cores:g}" for what, cores in used.items())
    return [f"- {name}: CPU cores in use: {told}"] if told else []


def _part(results: dict[str, Any], name: str) -> dict[str, Any]:
    found = results.get(name)
    return found if isinstance(found, dict) else {}


def row(
    what: str, value: float | None, *, least: float | None = None, most: float | None = None
) -> Row:
    """A line; a goal that is missed is said so, and so is one that was not measured."""
    bound = least if least is not None else most
    if bound is None:
        return (what, "", text_of(value), "")
    wanted = f"{'at least' if least is not None else 'at most'} {text_of(bound)}"
    if value is None:
        return (what, wanted, "", "not measured")
    met = value >= bound if least is not None else value <= bound
    return (what, wanted, text_of(value), "met" if met else "**missed**")


def text_of(value: float | None) -> str:
    """Three digits of a fraction; empty where nothing is known."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _over(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else value / by


def _ratio(part: dict[str, Any], over: str, under: str) -> float | None:
    return _over(part.get(over), part.get(under))


def _moved(before: dict[str, Any], after: dict[str, Any], name: str) -> float | None:
    if name not in before or name not in after:
        return None
    return float(after[name] - before[name])
