# SPDX-License-Identifier: Apache-2.0
"""The two timers as systemd has them, drop-ins of an administrator included."""

import asyncio
import logging
from typing import Any

from gpuwarden.names import tuning_timer
from gpuwarden.systemd.calendar import CalendarError, last_elapse
from gpuwarden.systemd.units import Systemd
from gpuwarden.tuning.decision import TimeOfDay, Timer

log = logging.getLogger(__name__)


async def read_timer(systemd: Systemd, time_of_day: TimeOfDay, now: float) -> Timer:
    """When this time of day last began, and whether its timer fires now. Raises BusError."""
    unit = tuning_timer(time_of_day)
    properties = await systemd.properties(unit)
    # A timer is "running" from its elapse until the service that it started has ended.
    fires = properties.unit.get("SubState") == "running"
    try:
        elapse = await asyncio.to_thread(last_elapse, _calendar(properties.own), now)
    except CalendarError as error:
        log.warning("%s counts from when it last fired: %s", unit, error)
        elapse = (properties.own.get("LastTriggerUSec") or 0) / 1e6 or None
    return Timer(elapse, fires)


def _calendar(properties: dict[str, Any]) -> list[str]:
    """The OnCalendar= expressions of a timer; TimersCalendar is (base, expression, next elapse)."""
    rows = properties.get("TimersCalendar") or []
    return [str(expression) for base, expression, _ in rows if base == "OnCalendar"]
