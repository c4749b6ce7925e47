# SPDX-License-Identifier: Apache-2.0
"""What is to be done about the host's profile: pure."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

TimeOfDay = Literal["day", "night"]


class Wish(StrEnum):
    """What a run is asked for, the instance's name of medgemma-tuning@.service.

    ``NOW`` is day or night, whichever it is; ``OFF`` is what was there before us. ``END`` is that
    at the end of medgemma-tuning.service itself, for which tuned is not started.
    """

    DAY = "day"
    NIGHT = "night"
    NOW = "now"
    OFF = "off"
    END = "end"


@dataclass(frozen=True, slots=True)
class Timer:
    """One of the two timers.

    :ivar last_elapse: when it was last due, in unix seconds, whether or not the host was up then;
        None where it never was.
    :ivar fires: it has just started its service.
    """

    last_elapse: float | None
    fires: bool = False


def time_of_day_now(day: Timer, night: Timer) -> TimeOfDay:
    """It is night from the night's timer on until the day's is due; day where neither ever was."""
    if night.last_elapse is None:
        return "day"
    if day.last_elapse is None:
        return "night"
    return "day" if day.last_elapse >= night.last_elapse else "night"


def time_of_day_for(wish: Wish, day: Timer, night: Timer) -> TimeOfDay:
    """The time of day to tune for.

    Somebody who starts ``medgemma-tuning@night`` by hand gets the night. A timer may be late: a
    host that was down or asleep is told of all that it missed at once, in any order, so what counts
    then is the time it is now.
    """
    if wish is Wish.DAY and not day.fires:
        return "day"
    if wish is Wish.NIGHT and not night.fires:
        return "night"
    return time_of_day_now(day, night)


@dataclass(frozen=True, slots=True)
class Found:
    """The host's tuner before we do anything.

    :ivar profile: the profile in force, several by spaces; empty: none.
    :ivar manual: somebody chose it; else tuned did, by what it recommends for the machine.
    :ivar was_running: tuned ran before we came.
    """

    profile: str
    manual: bool
    was_running: bool


class Record(BaseModel):
    """What the host gets back, on disk before we change anything.

    :ivar ours: the profiles that we have set, or are about to: whatever else is found in force is
        somebody's own choice. Empty while we start tuned to learn what it would do without us.
    :ivar started_tuned: tuned did not run before us, in the boot with this ``boot_id``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    boot_id: str
    started_tuned: bool
    former_profile: str = ""
    former_manual: bool = True
    ours: tuple[str, ...] = ()


def remember(known: Record | None, found: Found, target: str, boot_id: str) -> Record:
    """The record to keep before ``target`` is set.

    A profile that isn't ours is the new former one, whoever set it and whenever: ours is never
    taken for it.
    """
    is_ours = known is not None and found.profile in known.ours
    same_boot = known is not None and known.boot_id == boot_id
    started = not found.was_running
    if known is not None and same_boot and (is_ours or not known.ours):
        started = started or known.started_tuned
    if known is not None and is_ours:
        ours = tuple(dict.fromkeys((found.profile, target)))
        update = {"boot_id": boot_id, "started_tuned": started, "ours": ours}
        return known.model_copy(update=update)
    return Record(
        boot_id=boot_id,
        started_tuned=started,
        former_profile=found.profile,
        former_manual=found.manual,
        ours=(target,),
    )


@dataclass(frozen=True, slots=True)
class Restoration:
    """How the host gets back what it had.

    :ivar profile: to be set; None: the one in force stays. Empty: none at all.
    :ivar manual: else tuned is to choose by itself again.
    :ivar stop_tuned: it did not run before us, and its end takes back all it has set.
    """

    profile: str | None
    manual: bool = True
    stop_tuned: bool = False


def restoration(known: Record, found: Found, boot_id: str) -> Restoration:
    """What to do for what was there before us to be there again."""
    started = known.started_tuned and known.boot_id == boot_id
    if found.profile not in known.ours:
        # Somebody's own choice since. Only a tuned that has never got further than to be started
        # by us is stopped again.
        return Restoration(None, stop_tuned=not found.was_running or (started and not known.ours))
    back = Restoration(known.former_profile, known.former_manual)
    return replace(back, stop_tuned=started or not found.was_running)
