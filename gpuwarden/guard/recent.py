# SPDX-License-Identifier: Apache-2.0
"""The last events of the service, for a status to show: told by the guard, or seen of the cards."""

import logging
import time
from collections import deque
from collections.abc import Mapping

from gpuwarden.bus.objects.changes import thermal_changes
from gpuwarden.control.states import GuardData, HappenedEvent
from gpuwarden.systemd.events import Event
from gpuwarden.text import one_line
from gpuwarden.values import ThermalState

KEPT_EVENTS = 20
LONGEST_CHARACTERS = 300  # what a model's exception says may be a book; the journal has it whole
# The thermal guards tell the journal themselves; here they are only seen.
_LEVELS = {
    ThermalState.ALERT: logging.WARNING,
    ThermalState.RELEASED: logging.WARNING,
    ThermalState.CRITICAL: logging.ERROR,
    ThermalState.BLIND: logging.ERROR,
    ThermalState.LOST: logging.ERROR,
}


class Recent:
    """Remembers the last events, those of a former guard of this boot among them."""

    def __init__(self, former: GuardData | None = None) -> None:
        self._events = deque(former.events if former else (), maxlen=KEPT_EVENTS)

    def told(self, event: Event, message: str, level: int, fields: Mapping[str, str]) -> None:
        """What :func:`gpuwarden.systemd.events.follow` calls."""
        self._events.append(
            HappenedEvent(
                unix_microseconds=time.time_ns() // 1000,
                event=event.label,
                message=one_line(message)[:LONGEST_CHARACTERS],
                level=_level(level),
            )
        )

    def added_to(self, old: GuardData | None, new: GuardData) -> GuardData:
        """``new`` with the last events, and those among them that its cards have had since."""
        for card in thermal_changes(old, new) if old else ():
            because = f" ({card.reason})" if card.reason else ""
            text = f"GPU {card.gpu_index}: {card.old} -> {card.new}{because}"
            level = _LEVELS.get(ThermalState(card.new), logging.INFO)
            self.told(Event.THERMAL_STATE, text, level, {})
        return new.model_copy(update={"events": list(self._events)})


def _level(level: int) -> str:
    if level >= logging.ERROR:
        return "error"
    return "warning" if level >= logging.WARNING else "info"
