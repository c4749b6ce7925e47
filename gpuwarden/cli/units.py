# SPDX-License-Identifier: Apache-2.0
"""What systemd says of units, asked by systemctl: the facts that the supervisor decides on."""

import time
from collections.abc import Mapping

from gpuwarden.guard.facts import BECAME, unit_facts
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.systemd.command import SystemctlError, units_properties
from gpuwarden.systemd.units import UnitProperties

TIMEOUT_SECONDS = 5.0
_TEXTS = ("ActiveState", "SubState", "Result", "StatusText", "ControlGroup")
_NUMBERS = ("MainPID", "ExecMainStatus", "NRestarts", "ExecMainStartTimestampMonotonic")
_TIMES = tuple(dict.fromkeys(BECAME.values()))


def unit_facts_now(units: Mapping[int, str]) -> dict[int, UnitFacts] | None:
    """The facts of each unit, by its number; None where systemd doesn't say."""
    if not units:
        return {}
    times = [f"{name}Monotonic" for name in _TIMES]
    asked = (*_TEXTS, *_NUMBERS, *times, "Job")
    try:
        answers = units_properties(list(units.values()), asked, TIMEOUT_SECONDS)
    except SystemctlError:
        return None
    now = time.time() - time.monotonic()  # when the monotonic clock began, by the other one
    return {number: _facts(answer, now) for number, answer in zip(units, answers, strict=True)}


def _facts(answer: Mapping[str, str], clock_began_unix_seconds: float) -> UnitFacts:
    own = {name: answer.get(name, "") for name in _TEXTS}
    numbers = {name: _number(answer.get(name, "")) for name in _NUMBERS}
    became = {
        name: int(clock_began_unix_seconds * 1e6) + at
        if (at := _number(answer.get(f"{name}Monotonic", "")))
        else 0
        for name in _TIMES
    }
    job = (_number(answer.get("Job", "")), "/")
    return unit_facts(UnitProperties({**own, **became, "Job": job}, {**own, **numbers}))


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
