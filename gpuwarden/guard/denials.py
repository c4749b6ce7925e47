# SPDX-License-Identifier: Apache-2.0
"""Which denied calls the journal tells one by one: a user in a loop must not drown the rest. Pure.

journald drops whatever a service writes beyond its rate limit, the cooling's messages included; and
an audit that is rotated away by one user's refusals is none. So of each user the first of a minute
are told singly, and the others by their number when the minute is over.
"""

from dataclasses import dataclass
from enum import Enum, auto

WINDOW_SECONDS = 60.0
TOLD_SINGLY = 60  # of one user in that time: more than any person, or tool in order, is denied


class Telling(Enum):
    """What becomes of one denied call."""

    SINGLY = auto()
    FIRST_COUNTED = auto()  # its number is to be told when the time is over
    COUNTED = auto()


@dataclass
class _Window:
    ends_seconds: float
    told: int = 0
    counted: int = 0


class Denials:
    """The denied calls of each user within the last minute; times of any monotonic clock."""

    def __init__(
        self, told_singly: int = TOLD_SINGLY, window_seconds: float = WINDOW_SECONDS
    ) -> None:
        self.window_seconds = window_seconds
        self._told_singly = told_singly
        self._windows: dict[str, _Window] = {}

    def note(self, who: str, now_seconds: float) -> Telling:
        """A call of ``who`` was denied."""
        # What is counted stays until it was told.
        self._windows = {
            each: window
            for each, window in self._windows.items()
            if window.counted or window.ends_seconds > now_seconds
        }
        window = self._windows.setdefault(who, _Window(now_seconds + self.window_seconds))
        if window.told < self._told_singly:
            window.told += 1
            return Telling.SINGLY
        window.counted += 1
        return Telling.FIRST_COUNTED if window.counted == 1 else Telling.COUNTED

    def ends_seconds(self, who: str) -> float:
        """When the time of ``who`` is over. Raises KeyError for somebody who was not denied."""
        return self._windows[who].ends_seconds

    def end(self, who: str) -> int:
        """The time of ``who`` is over: how many calls were only counted."""
        return self._windows.pop(who).counted
