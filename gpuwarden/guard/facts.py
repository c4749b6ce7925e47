# SPDX-License-Identifier: Apache-2.0
"""From systemd's property names to the facts the life cycle is decided on."""

from typing import Any

from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.systemd.units import UnitProperties

BECAME = {
    "active": "ActiveEnterTimestamp",
    "reloading": "ActiveEnterTimestamp",
    "inactive": "InactiveEnterTimestamp",
    "failed": "InactiveEnterTimestamp",
    "activating": "InactiveExitTimestamp",
    "deactivating": "ActiveExitTimestamp",
}


def unit_facts(properties: UnitProperties) -> UnitFacts:
    """The facts of one unit. Properties that this systemd doesn't have count as unknown."""
    unit, own = properties.unit, properties.own
    active_state = _text(unit, "ActiveState", "inactive")
    return UnitFacts(
        active_state=active_state,
        sub_state=_text(unit, "SubState", "dead"),
        result=_text(own, "Result", "success"),
        main_pid=_number(own, "MainPID"),
        exec_pid=_number(own, "ExecMainPID"),
        exit_code=_number(own, "ExecMainCode"),
        exit_status=_number(own, "ExecMainStatus"),
        exited_unix_microseconds=_number(own, "ExecMainExitTimestamp"),
        restarts=_number(own, "NRestarts"),
        status_text=_text(own, "StatusText"),
        control_group=_text(own, "ControlGroup"),
        has_job=_has_job(unit),
        started_monotonic_microseconds=_number(own, "ExecMainStartTimestampMonotonic"),
        since_unix_microseconds=_number(unit, BECAME.get(active_state, "StateChangeTimestamp")),
    )


def _has_job(properties: dict[str, Any]) -> bool:
    """Job is (number, path); the number is 0 where there is none."""
    job = properties.get("Job")
    return isinstance(job, list | tuple) and len(job) == 2 and job[0] != 0


def _text(properties: dict[str, Any], name: str, default: str = "") -> str:
    value = properties.get(name)
    return value if isinstance(value, str) else default


def _number(properties: dict[str, Any], name: str) -> int:
    value = properties.get(name)
    return value if isinstance(value, int) else 0
