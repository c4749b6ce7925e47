# SPDX-License-Identifier: Apache-2.0
"""What happens to one card: told to the journal, and the last of it kept for who asks."""

import logging
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from gpuwarden.control.requests import ThermalEvent
from gpuwarden.control.snapshot import SnapshotError, boot_id, read_snapshot
from gpuwarden.control.states import ThermalData, Xid
from gpuwarden.systemd.events import Event, tell
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.thermal.view import STARTING, View
from gpuwarden.values import ThermalState

KEPT_EVENTS = 50
KEPT_XIDS = 8  # each is judged within a second or two of its report
UNSEEN = (ThermalState.BLIND, ThermalState.LOST)
LEVELS = {
    ThermalState.NORMAL: logging.INFO,
    ThermalState.RECOVERING: logging.INFO,
    ThermalState.RELEASED: logging.WARNING,
    ThermalState.ALERT: logging.WARNING,
    ThermalState.CRITICAL: logging.ERROR,
    ThermalState.BLIND: logging.ERROR,
    ThermalState.LOST: logging.ERROR,
}


class Chronicle:
    """Tells and remembers.

    :param xids: what a former guard of this boot was told: no driver tells it again.
    :ivar events: the last ones, oldest first.
    :ivar xids: the last of them that the driver has reported, oldest first.
    """

    def __init__(self, gpu_index: int, xids: Iterable[Xid] = ()) -> None:
        self._gpu_index = gpu_index
        self._sight_lost = False
        self.events: deque[ThermalEvent] = deque(maxlen=KEPT_EVENTS)
        self.xids: deque[Xid] = deque(xids, maxlen=KEPT_XIDS)

    def happened(self, happening: Happening) -> None:
        """Tell what the driver's thread has brought."""
        tell(happening.event, happening.message, happening.level, **happening.fields)
        self._remember(happening.event, happening.message)
        xid = happening.fields.get("XID")
        if xid is not None:
            self.xids.append(Xid(number=int(xid), unix_microseconds=time.time_ns() // 1000))

    def tell(
        self, view: View, event: Event, text: str, level: int = logging.INFO, **fields: object
    ) -> None:
        """Tell something about the card, with the fields that every such event carries."""
        known: dict[str, object] = {"GPU": self._gpu_index, "GPU_UUID": view.card.uuid}
        if view.seen is not None:
            figures = {
                "TEMPERATURE_CELSIUS": view.seen.sample.temperature_celsius,
                "POWER_LIMIT_WATTS": view.seen.condition.power_limit_watts,
            }
            known |= {name: f"{value:g}" for name, value in figures.items() if value is not None}
        message = f"GPU {self._gpu_index}: {text}"
        tell(event, message, level, **known, **fields)
        self._remember(event, message)

    def changed(self, before: View, after: View) -> None:
        """Tell a change of state, of sight, and that workers must go."""
        old, new, reason = before.state, after.state, after.judgement.reason
        if old != new:
            text = f"{old.value} -> {new.value}" + (f" ({reason})" if reason else "")
            self.tell(
                after,
                Event.THERMAL_STATE,
                text,
                LEVELS[new],
                STATE_OLD=old.value,
                STATE_NEW=new.value,
                REASON=reason,
            )
        self._changed_sight(after)
        stop = after.judgement.settings.stop_requested
        if stop and not before.judgement.settings.stop_requested:
            text = "cooling is not enough: its workers must stop"
            self.tell(after, Event.STOP_REQUESTED, text, logging.ERROR, REASON=reason)

    def _changed_sight(self, after: View) -> None:
        if _is_unseen(after) and not self._sight_lost:
            self._sight_lost = True
            reason = after.judgement.reason
            self.tell(after, Event.SENSOR_LOST, reason, logging.ERROR, REASON=reason)
        elif self._sight_lost and after.seen is not None:
            self._sight_lost = False
            self.tell(after, Event.SENSOR_REGAINED, "it can be read again")

    def thresholds(self, view: View, thresholds: Thresholds, refusal: str) -> None:
        """Tell what the card is held to, and why it is not what was configured."""
        if refusal:
            text = f"the configured thresholds are refused, the card's own hold: {refusal}"
            self.tell(view, Event.THERMAL_THRESHOLDS_REFUSED, text, logging.ERROR, REASON=refusal)
        text = (
            f"alert {thresholds.alert_celsius:.0f} C, critical {thresholds.critical_celsius:.0f} "
            f"C, safe {thresholds.safe_celsius:.0f} C"
        )
        text += "".join(f"; {note}" for note in thresholds.notes)
        self.tell(view, Event.THERMAL_THRESHOLDS, text)

    def _remember(self, event: Event, message: str) -> None:
        now = time.time_ns() // 1000
        found = ThermalEvent(unix_microseconds=now, event=event.label, message=message)
        self.events.append(found)


def former_xids(snapshot_file: Path) -> list[Xid]:
    """What the driver has reported to a former guard of this boot."""
    try:
        former = read_snapshot(snapshot_file, ThermalData)
    except SnapshotError:
        return []
    return former.data.xids if former.boot_id == boot_id() else []


def _is_unseen(view: View) -> bool:
    """Whether the card can't be read; one that has only just been started may be."""
    return view.state in UNSEEN and not view.judgement.reason.startswith(STARTING.reason)
