# SPDX-License-Identifier: Apache-2.0
"""When calendar expressions of timers were last due, as systemd itself reckons."""

import os
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime

TIMEOUT_SECONDS = 20.0
# How far to look back, in days, and how many elapses to ask for from there. A timer that is due
# more often than each quarter of an hour is looked at with less sharpness.
LOOK_BACK_DAYS = (1, 8, 400)
ELAPSES = 100

_MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_ELAPSE = re.compile(
    rf"^\s*(?:Next elapse|Iter\. #\d+|Iteration #\d+):.* (?P<local>{_MOMENT}) UTC$"
    rf"|^\s*\(in UTC\):.* (?P<utc>{_MOMENT}) UTC$",
    re.MULTILINE,
)


class CalendarError(Exception):
    """systemd-analyze can't tell; the text says why."""


def last_elapse(expressions: Sequence[str], now: float) -> float | None:
    """The last moment up to ``now`` at which one of the expressions was due, in unix seconds.

    None where none was for more than a year. Raises CalendarError.
    """
    if not expressions:
        return None
    for days in LOOK_BACK_DAYS:
        printed = _analyze(expressions, max(0.0, now - days * 86400))
        past = [moment for moment in elapses(printed) if moment <= now]
        if past:
            return max(past)
    return None


def elapses(printed: str) -> list[float]:
    """The moments that ``systemd-analyze calendar`` printed: in UTC, where the zone is another."""
    texts = [found["local"] or found["utc"] for found in _ELAPSE.finditer(printed)]
    return [datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in texts]


def _analyze(expressions: Sequence[str], since: float) -> str:
    command = [
        "systemd-analyze",
        "calendar",
        f"--base-time=@{since:.0f}",
        f"--iterations={ELAPSES}",
        "--",
        *expressions,
    ]
    try:
        return subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
    except subprocess.CalledProcessError as error:
        raise CalendarError(f"systemd-analyze calendar: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CalendarError(f"systemd-analyze calendar: {error}") from error
