# SPDX-License-Identifier: Apache-2.0
"""What came of many requests, in a few figures. Pure."""

from collections import Counter
from typing import Any


def summary_of(told: list[dict[str, Any]], wanted: int = 0) -> dict[str, Any]:
    """Rates, times and gaps of what was answered; ``wanted``: how many there should have been."""
    good = [one for one in told if not one["error"]]
    found: dict[str, Any] = {
        "requests": len(told),
        "failures": len(told) - len(good),
        "errors": sorted({one["error"] for one in told if one["error"]})[:5],
    }
    if len(told) < wanted:
        found["cut_short"] = f"{len(told)} of {wanted} requests: its time was up"
    if not good:
        return found
    took = sorted(one["ended"] for one in good)
    span = max(one["began"] + one["ended"] for one in good) - min(one["began"] for one in good)
    steps = sorted(one["middle_gap"] for one in good)
    found.update(
        requests_per_second=len(good) / span,
        tokens_per_second=sum(one["tokens"] for one in good) / span,
        rows_in_use=sum(one["ended"] - one["first"] for one in good) / span,
        mean_upload_seconds=sum(one["uploaded"] for one in good) / len(good),
        mean_first_token_seconds=sum(one["first"] for one in good) / len(good),
        p50_seconds=share_of(took, 0.5),
        p95_seconds=share_of(took, 0.95),
        most_seconds=took[-1],
        upload_seconds=share_of(sorted(one["uploaded"] for one in good), 0.5),
        first_token_seconds=share_of(sorted(one["first"] for one in good), 0.5),
        milliseconds_per_step=1000 * steps[len(steps) // 2],
        prompt_tokens=good[0]["prompt_tokens"],
        **_gaps(good),
    )
    return found


def share_of(values: list[float], share: float) -> float:
    """What so large a share of sorted values is not above."""
    return values[min(len(values) - 1, int(len(values) * share))]


def _gaps(good: list[dict[str, Any]]) -> dict[str, Any]:
    counts: Counter[int] = Counter()
    for one in good:
        counts.update({int(size): count for size, count in one["gaps"].items()})
    longest = max([seconds for one in good for _, seconds in one["long"]], default=0.0)
    return {
        "gaps": sum(counts.values()),
        "p50_gap_milliseconds": _of_counts(counts, 0.5),
        "p95_gap_milliseconds": _of_counts(counts, 0.95),
        "p99_gap_milliseconds": _of_counts(counts, 0.99),
        "longest_gap_milliseconds": 1000 * longest or float(max(counts, default=0)),
        "gaps_over_60_milliseconds": sum(len(one["long"]) for one in good),
    }


def _of_counts(counts: Counter[int], share: float) -> float:
    """The same of values that are counted; to the millisecond."""
    left = share * sum(counts.values())
    for size in sorted(counts):
        left -= counts[size]
        if left <= 0:
            return size + 0.5
    return 0.0
