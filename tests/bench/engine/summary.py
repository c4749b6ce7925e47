"""What came of many requests, in a few figures. Pure."""

from typing import Any


def summary_of(told: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates, times and gaps of what was answered."""
    good = [one for one in told if not one["error"]]
    errors = sorted({one["error"] for one in told if one["error"]})
    found: dict[str, Any] = {
        "requests": len(told),
        "failures": len(told) - len(good),
        "errors": errors[:5],
    }
    if not good:
        return found
    took = sorted(one["ended"] for one in good)
    span = max(one["began"] + one["ended"] for one in good) - min(one["began"] for one in good)
    gaps = sorted(one["longest_gap"] for one in good)
    steps = sorted(one["middle_gap"] for one in good)
    found.update(
        requests_per_second=len(good) / span,
        tokens_per_second=sum(one["tokens"] for one in good) / span,
        p50_seconds=took[len(took) // 2],
        p95_seconds=took[min(len(took) - 1, int(len(took) * 0.95))],
        most_seconds=took[-1],
        upload_seconds=sorted(one["uploaded"] for one in good)[len(good) // 2],
        first_token_seconds=sorted(one["first"] for one in good)[len(good) // 2],
        milliseconds_per_step=1000 * steps[len(steps) // 2],
        longest_gap_milliseconds=1000 * gaps[-1],
        gaps_over_60_milliseconds=sum(one["long_gaps"] for one in good),
        p95_of_longest_gaps_milliseconds=1000 * gaps[min(len(gaps) - 1, int(len(gaps) * 0.95))],
        prompt_tokens=good[0]["prompt_tokens"],
    )
    return found


def full_rate(answers: list[float], since: float, rate: float) -> float | None:
    """Seconds until answers come as often again as before, over a second; None if they don't."""
    for place, at in enumerate(answers):
        count = sum(1 for other in answers[place:] if other < at + 1.0)
        if rate and count >= 0.9 * rate:
            return at - since
    return None
