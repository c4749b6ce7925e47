"""The results as the documentation shows them."""

from typing import Any

HEAD = ("| what | goal | measured |", "|---|---|---|")


def table_of(results: dict[str, Any]) -> list[str]:
    """Lines of Markdown: each goal and what was measured."""
    naive, alone = _part(results, "naive"), _part(results, "alone")
    together, mixed, killed = (_part(results, name) for name in ("together", "mixed", "killed"))
    fixed = _part(results, "reproducible")
    memory = mixed.get("memory_after") or {}
    before = mixed.get("memory_before") or {}
    rows = [
        ("naive loop, batch 1: ms per step", "", _number(naive, "milliseconds_per_step")),
        ("naive loop: p50 of a request, s", "", _number(naive, "p50_seconds")),
        ("naive loop: requests/s", "", _number(naive, "requests_per_second")),
        (
            "batch 1: ms per decode step",
            "2.7, at most 3.2",
            _number(alone, "milliseconds_per_step"),
        ),
        ("batch 1: p50 of a request, s", "at most 0.60", _number(alone, "p50_seconds")),
        ("batch 1, image in the request: p50, s", "", _number(alone, "p50_seconds_as_data_url")),
        ("together: requests/s", "at least 25", _number(together, "requests_per_second")),
        ("together: tokens/s", "", _number(together, "tokens_per_second")),
        ("together: p50, s", "", _number(together, "p50_seconds")),
        ("together: p95 over p50", "at most 2.5", _ratio(together, "p95_seconds", "p50_seconds")),
        ("together: ms per step", "", _number(together, "milliseconds_per_step")),
        ("together: longest gap, ms", "at most 60", _number(together, "longest_gap_milliseconds")),
        ("together: gaps over 60 ms", "0", _number(together, "gaps_over_60_milliseconds")),
        ("mixed: requests", "1000", _number(mixed, "requests")),
        ("mixed: failures", "0", _number(mixed, "failures")),
        ("mixed: requests/s", "", _number(mixed, "requests_per_second")),
        ("mixed: device allocations meanwhile", "0", _moved(before, memory, "num_device_alloc")),
        ("mixed: allocation retries meanwhile", "0", _moved(before, memory, "num_alloc_retries")),
        (
            "mixed: inactive split over reserved",
            "at most 0.08",
            _ratio(memory, "inactive_split_bytes", "reserved_bytes"),
        ),
        ("mixed: (reserved - peak) over reserved", "at most 0.08", _slack(memory)),
        ("killed: requests without an answer", "0", _number(killed, "failures")),
        ("load, cold, s", "", _number(_part(results, "load_cold"), "seconds")),
        ("load, warm, s", "", _number(killed, "load_seconds_warm")),
        ("reproducible: ms per step", "", _number(fixed, "milliseconds_per_step")),
        ("reproducible: answers to one request", "", _number(fixed, "answers")),
        ("reproducible: different ones of them", "1", _number(fixed, "different_answers")),
        (
            "killed: back to full rate, s",
            "load + 2",
            _number(killed, "full_rate_seconds_after_kill"),
        ),
    ]
    lines = [f"| {what} | {goal} | {measured} |" for what, goal, measured in rows]
    return ["Random weights: speed alone, no medical meaning.", "", *HEAD, *lines]


def _part(results: dict[str, Any], name: str) -> dict[str, Any]:
    found = results.get(name)
    return found if isinstance(found, dict) else {}


def _number(part: dict[str, Any], name: str) -> str:
    value = part.get(name)
    if value is None:
        return "error" if "error" in part else ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _ratio(part: dict[str, Any], over: str, under: str) -> str:
    if not part.get(under):
        return ""
    return f"{part.get(over, 0) / part[under]:.3g}"


def _moved(before: dict[str, Any], after: dict[str, Any], name: str) -> str:
    if name not in before or name not in after:
        return ""
    return str(after[name] - before[name])


def _slack(memory: dict[str, Any]) -> str:
    reserved = memory.get("reserved_bytes")
    if not reserved:
        return ""
    return f"{(reserved - memory.get('peak_allocated_bytes', 0)) / reserved:.3g}"
