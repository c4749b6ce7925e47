# SPDX-License-Identifier: Apache-2.0
"""What a card's thermal guard says, as limits for its workers. Pure.

A guard's state counts for as long as it says itself (three seconds). Where it is older, missing,
of another boot or no sense can be made of it, nobody is known to watch the card: it then gets the
cooler of what was said last and eco. The same holds while the guard says that it can't see.
"""

from dataclasses import dataclass, replace

from gpuwarden.control.snapshot import Snapshot
from gpuwarden.control.states import ThermalData
from gpuwarden.gateway.work import ECO, CardLimits
from gpuwarden.values import ThermalState

Published = Snapshot[ThermalData]

UNWATCHED = (ThermalState.BLIND, ThermalState.LOST, ThermalState.RELEASED)
DUTY_NEWS = 0.1  # a regulated duty moves all the time: smaller steps are not worth an event each


@dataclass(frozen=True)
class CardHeat:
    """What is known of a card.

    :ivar limits: what its workers may be given.
    :ivar reason: why; what the guard says, or what is wrong with its state.
    :ivar believed: whether the guard's state is there and counts.
    :ivar said: what the guard said last, if it ever did.
    """

    limits: CardLimits = ECO
    reason: str = ""
    believed: bool = False
    said: CardLimits | None = None


UNKNOWN = CardHeat()
COOL = CardHeat(CardLimits(), believed=True)


@dataclass(frozen=True)
class Moment:
    """Now, as snapshots are dated."""

    boot_id: str
    boottime_nanoseconds: int


def judge(before: CardHeat, card: int, published: Published | str, now: Moment) -> CardHeat:
    """What holds for a card now.

    :param published: its guard's state as it lies there, or what is wrong with the file.
    """
    if isinstance(published, str):
        return unwatched(before.said, published)
    data = published.data
    if published.boot_id != now.boot_id:
        return unwatched(before.said, "the thermal guard's state is of another boot")
    nonsense = nonsense_in(data, card)
    if nonsense:
        return unwatched(before.said, f"the thermal guard's state makes no sense: {nonsense}")
    said = limits_of(data)
    age_seconds = published.age_seconds(now.boottime_nanoseconds)
    valid_seconds = published.valid_milliseconds / 1000
    if not 0 <= age_seconds <= valid_seconds:
        return unwatched(said, f"the thermal guard has said nothing for over {valid_seconds:g} s")
    reason = ": ".join(text for text in (data.state.value, data.reason) if text)
    if data.state in UNWATCHED:
        return CardHeat(cooler(said, ECO), reason, believed=True, said=said)
    return CardHeat(said, reason, believed=True, said=said)


def unwatched(said: CardLimits | None, trouble: str) -> CardHeat:
    """A card that nobody is known to watch."""
    limits = replace(cooler(said or ECO, ECO), state=ThermalState.BLIND)
    return CardHeat(limits, trouble, believed=False, said=said)


def limits_of(data: ThermalData) -> CardLimits:
    """What a guard asks for. A duty of nothing is a pause, and so is a card to be stopped."""
    paused = data.admission == "paused" or data.stop_requested or data.dispatch_duty == 0
    duty = data.dispatch_duty if data.dispatch_duty > 0 else 1.0
    return CardLimits(data.batch_limit, duty, paused, data.state)


def nonsense_in(data: ThermalData, card: int) -> str:
    """What no guard of this card can mean; empty if there is nothing of the kind."""
    if data.index != card:
        return f"index is {data.index}, should be {card}"
    if data.batch_limit is not None and data.batch_limit < 1:
        return f"batch_limit is {data.batch_limit}, should be 1 or more, or null"
    if not 0 <= data.dispatch_duty <= 1:  # NaN, too
        return f"dispatch_duty is {data.dispatch_duty:g}, should be 0 to 1"
    return ""


def cooler(one: CardLimits, other: CardLimits) -> CardLimits:
    """The stricter of both in each respect; the state is the first one's."""
    batches = [limit for limit in (one.batch_limit, other.batch_limit) if limit is not None]
    return CardLimits(
        min(batches, default=None),
        min(one.duty, other.duty),
        one.paused or other.paused,
        one.state,
    )


def is_news(told: CardHeat, heat: CardHeat) -> bool:
    """Whether the journal should hear of it, after what it was told last."""
    before, after = told.limits, heat.limits
    if (told.believed, before.batch_limit, before.paused) != (
        heat.believed,
        after.batch_limit,
        after.paused,
    ):
        return True
    ends = after.duty == 1 and before.duty != 1
    return ends or round(abs(after.duty - before.duty), 6) >= DUTY_NEWS


def is_cooler(told: CardHeat, heat: CardHeat) -> bool:
    """Whether anything is stricter than it was."""
    return cooler(told.limits, heat.limits) != told.limits or (told.believed and not heat.believed)


def sentence(limits: CardLimits) -> str:
    """Limits in words."""
    if limits.paused:
        return "it is given no new work"
    parts = []
    if limits.batch_limit is not None:
        parts.append(f"at most {limits.batch_limit} together")
    if limits.duty < 1:
        parts.append(f"work for {limits.duty:.0%} of the time")
    return ", ".join(parts) if parts else "it is not limited"
