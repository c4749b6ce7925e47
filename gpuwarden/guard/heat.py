# SPDX-License-Identifier: Apache-2.0
"""Whether a card's workers are held back: for its heat, or while it is released. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpuwarden.control.states import Held, ThermalData, WorkerStatus
from gpuwarden.values import ThermalState, WorkerState

# The card must be calm for so long before its workers load again: first the 30 s for which a card
# must be safe before it gets its limits back (design.md, thresholds), longer each time that the
# heat came back, so that a card that can't bear its workers isn't heated by loading them for ever.
CALM_SECONDS = (30, 60, 120, 240, 480, 600)
FORGET_SECONDS = 3600.0  # a card that bore its workers so long begins with the shortest wait again

CALM = frozenset({ThermalState.NORMAL, ThermalState.ALERT, ThermalState.RECOVERING})
DOWN = frozenset({WorkerState.STOPPED, WorkerState.FAILED})


@dataclass(frozen=True, slots=True)
class Hold:
    """What holds a card's workers back.

    :ivar heat: they are stopped until the card has cooled.
    :ivar released: somebody is at work on the card: none is started.
    :ivar stops: how often heat has stopped them lately.
    :ivar calm_since_seconds: since when the card could take them back; None: it can't.
    :ivar freed_at_seconds: when heat held them last.
    """

    heat: bool = False
    released: bool = False
    stops: int = 0
    calm_since_seconds: float | None = None
    freed_at_seconds: float | None = None

    @property
    def held(self) -> Held:
        """In one word; empty where nothing holds them."""
        if self.heat:
            return "heat"
        return "released" if self.released else ""


FREE = Hold()


def next_hold(hold: Hold, card: ThermalData | None, now_seconds: float) -> Hold:
    """The hold after a look at the card.

    :param card: what its thermal guard says; None while that is silent, which changes nothing: a
        hot card is not believed to have cooled, a cool one goes on as it was.
    """
    if card is None:
        return replace(hold, calm_since_seconds=None)
    hold = replace(hold, released=card.state is ThermalState.RELEASED)
    if card.stop_requested and card.state is not ThermalState.LOST:
        stops = hold.stops if hold.heat else hold.stops + 1
        return replace(hold, heat=True, stops=stops, calm_since_seconds=None)
    if not hold.heat:
        return _forgotten(hold, now_seconds)
    if card.state not in CALM:
        return replace(hold, calm_since_seconds=None)
    since = now_seconds if hold.calm_since_seconds is None else hold.calm_since_seconds
    if now_seconds - since < calm_seconds(hold.stops):
        return replace(hold, calm_since_seconds=since)
    return Hold(stops=hold.stops, freed_at_seconds=now_seconds)


def calm_seconds(stops: int) -> float:
    """How long a card must be calm that had to be stopped so often."""
    return CALM_SECONDS[min(max(stops, 1), len(CALM_SECONDS)) - 1]


def occupants(workers: Iterable[WorkerStatus], gpu_index: int) -> list[int]:
    """The workers that have the card open, or are about to."""
    return [
        worker.number
        for worker in workers
        if worker.gpu == gpu_index and (worker.main_pid or worker.state not in DOWN)
    ]


def _forgotten(hold: Hold, now_seconds: float) -> Hold:
    freed = hold.freed_at_seconds
    if freed is None or now_seconds - freed < FORGET_SECONDS:
        return hold
    return Hold(released=hold.released)
