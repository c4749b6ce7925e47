# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker of a card: whether it serves, or needs a reset or a reboot first. Pure.

An application's error is none of its business: the worker is started again, by systemd and then by
the guard's back-off. What trips it is an XID whose remedy is a reset or a reboot, or the card's own
recovery action. It is closed again when the card says that it is well, when it comes back after it
was let go of (which a reset takes), with a new boot, or when an operator starts a worker on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gpuwarden.control.states import Held, ThermalData, Xid
from gpuwarden.values import ThermalState
from gpuwarden.xids import XidClass, describe_xid, xid_class

Remedy = Literal["", "reset", "reboot"]
Told = tuple[int, int]  # an XID and its time: one report of the driver

# The holds for which workers that run are stopped.
TAKING_DOWN: frozenset[Held] = frozenset({"heat", "reset", "reboot"})

BY_XID: dict[XidClass, Remedy] = {XidClass.RESET: "reset", XidClass.REBOOT: "reboot"}
# gpuwarden.nvml.vocabulary, field 230. Draining peers (drain-p2p) leaves the card's own work alone.
BY_CARD: dict[str, Remedy] = {
    "gpu-reset": "reset",
    "bus-reset": "reset",
    "drain-and-reset": "reset",
    "node-reboot": "reboot",
    "system-reboot": "reboot",
}
WELL = "none"  # what a card's recovery action says when there is nothing to recover from
AWAY = frozenset({ThermalState.RELEASED, ThermalState.LOST})
UNREAD = AWAY | {ThermalState.BLIND}
WHAT_TO_DO: dict[Remedy, str] = {
    "": "",
    "reset": "gpuwarden thermal release {0} 600; nvidia-smi -r -i {0}; "
    "gpuwarden thermal clear-override {0}",
    "reboot": "reboot this node",
}


@dataclass(frozen=True, slots=True)
class Breaker:
    """Whether a card serves.

    :ivar remedy: what it needs first; empty while it serves.
    :ivar why: what was seen, in words.
    :ivar by_card: the card itself has asked for it, so that it can also say that it is over.
    :ivar was_away: it was let go of or lost since, as a reset makes it.
    :ivar judged: the reports of XIDs that were judged already.
    """

    remedy: Remedy = ""
    why: str = ""
    by_card: bool = False
    was_away: bool = False
    judged: frozenset[Told] = frozenset()

    def what_to_do(self, gpu_index: int) -> str:
        """The commands that would bring it back."""
        return WHAT_TO_DO[self.remedy].format(gpu_index)


CLOSED = Breaker()


def next_breaker(before: Breaker, card: ThermalData | None) -> Breaker:
    """The breaker after a look at the card; None, a silent thermal guard, changes nothing."""
    if card is None:
        return before
    now = replace(before, judged=_reports(card.xids))
    if now.remedy and card.state in AWAY:
        now = replace(now, was_away=True)
    if now.remedy and _is_well(now, card):
        now = Breaker(judged=now.judged)
    fresh = [xid for xid in card.xids if (xid.number, xid.unix_microseconds) not in before.judged]
    for xid in fresh:
        remedy = BY_XID.get(xid_class(xid.number), "")
        now = _tripped(now, remedy, describe_xid(xid.number), by_card=False)
    asked = asks_for(card)
    return _tripped(now, asked, f"the card asks for a {asked}", by_card=True)


def asks_for(card: ThermalData) -> Remedy:
    """What the card itself says that it needs."""
    return BY_CARD.get(card.recovery_action, "")


def closed_by_hand(before: Breaker) -> Breaker:
    """The breaker after an operator has started a worker on the card all the same."""
    return Breaker(judged=before.judged)


def remembered(remedy: Remedy, card: ThermalData | None) -> Breaker:
    """The breaker of a former guard of this boot.

    :param card: the card as that guard saw it last: what was judged then is not judged again.
    """
    if card is None:
        return Breaker(remedy)
    judged = _reports(card.xids)
    asked = asks_for(card)
    causes = [xid.number for xid in card.xids if BY_XID.get(xid_class(xid.number)) == remedy]
    if not remedy:
        return Breaker(judged=judged)
    if asked:
        return Breaker(remedy, f"the card asks for a {asked}", by_card=True, judged=judged)
    return Breaker(remedy, describe_xid(causes[-1]) if causes else "", judged=judged)


def _is_well(breaker: Breaker, card: ThermalData) -> bool:
    if card.state in UNREAD or asks_for(card):
        return False
    return breaker.was_away or (breaker.by_card and card.recovery_action == WELL)


def _tripped(now: Breaker, remedy: Remedy, why: str, *, by_card: bool) -> Breaker:
    """With a further reason; the graver remedy counts, and the first that asked for it is told."""
    by_card = by_card and bool(remedy)
    if not remedy or now.remedy in (remedy, "reboot"):
        return replace(now, by_card=now.by_card or by_card)
    return replace(now, remedy=remedy, why=why, by_card=now.by_card or by_card, was_away=False)


def _reports(xids: Iterable[Xid]) -> frozenset[Told]:
    return frozenset((xid.number, xid.unix_microseconds) for xid in xids)
