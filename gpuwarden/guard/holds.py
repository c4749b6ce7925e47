# SPDX-License-Identifier: Apache-2.0
"""Which cards' workers are held back now: for heat, a release, or a card that is out of service."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from gpuwarden.control.states import GuardData, Held, ThermalData
from gpuwarden.guard.breaker import (
    CLOSED,
    Breaker,
    asks_for,
    closed_by_hand,
    next_breaker,
    remembered,
)
from gpuwarden.guard.heat import FREE, Hold, next_hold
from gpuwarden.values import ServiceState

# From a thermal guard's word that it lets go until its next snapshot says so: it publishes each
# second, and a snapshot is believed for three.
RELEASE_SEEN_SECONDS = 5.0


class Holds:
    """The holds of all cards.

    :param former: what a former guard of this boot published: cards that it held for heat stay
        held until they have cooled, those out of service until they are well.
    """

    def __init__(self, former: GuardData | None) -> None:
        hot = set[int]()
        if former is not None and former.state is not ServiceState.STOPPING:
            hot = {worker.gpu for worker in former.workers if worker.held == "heat"}
        self._holds = {index: Hold(heat=True, stops=1) for index in hot}
        self._breakers = _former_breakers(former)
        self._asking: set[int] = set()
        self._releasing: dict[int, float] = {}
        self._taken: dict[int, Held] = {
            **dict.fromkeys(hot, "heat"),
            **{index: each.remedy for index, each in self._breakers.items() if each.remedy},
        }

    def look(
        self, cards: Iterable[int], thermal: Mapping[int, ThermalData], now_seconds: float
    ) -> None:
        """Take a look at every card; see ``next_hold`` and ``next_breaker``."""
        for index in cards:
            card = thermal.get(index)
            self._holds[index] = next_hold(self._holds.get(index, FREE), card, now_seconds)
            self._breakers[index] = next_breaker(self.breaker(index), card)
            if card is not None:
                (self._asking.add if asks_for(card) else self._asking.discard)(index)

    def breaker(self, gpu_index: int) -> Breaker:
        """Whether the card serves, or what it needs first."""
        return self._breakers.get(gpu_index, CLOSED)

    def asks(self, gpu_index: int) -> bool:
        """Whether the card itself says that it needs a reset or a reboot."""
        return gpu_index in self._asking

    def out_of_service(self) -> dict[int, str]:
        """By card why it is, and what to do, of those that need a reset or a reboot first."""
        return {
            index: f"GPU {index} is out of service, it needs a {each.remedy} ({each.why}): "
            f"{each.what_to_do(index)}"
            for index, each in sorted(self._breakers.items())
            if each.remedy
        }

    def close_breaker(self, gpu_index: int) -> None:
        """An operator wants the card back in service all the same."""
        self._breakers[gpu_index] = closed_by_hand(self.breaker(gpu_index))

    def held(self, gpu_index: int) -> Held:
        """Why the card's workers are held back; empty where they are not."""
        remedy = self.breaker(gpu_index).remedy
        if remedy:
            return remedy
        held = self._holds.get(gpu_index, FREE).held
        if not held and time.monotonic() < self._releasing.get(gpu_index, -math.inf):
            return "released"
        return held

    def all_held(self) -> dict[int, Held]:
        """Every card whose workers are held back."""
        cards = {*self._holds, *self._breakers, *self._releasing}
        return {index: held for index in sorted(cards) if (held := self.held(index))}

    def changes(self) -> list[tuple[int, Held, Held]]:
        """Card, former and present hold of each that changed since this was last asked."""
        before, self._taken = self._taken, self.all_held()
        return [
            (index, before.get(index, ""), self._taken.get(index, ""))
            for index in sorted({*before, *self._taken})
            if before.get(index) != self._taken.get(index)
        ]

    @contextmanager
    def releasing(self, gpu_index: int) -> Iterator[None]:
        """While a card is being released: none of its workers is started from now on."""
        self._releasing[gpu_index] = math.inf
        try:
            yield
        except BaseException:
            self._releasing.pop(gpu_index, None)
            raise
        self._releasing[gpu_index] = time.monotonic() + RELEASE_SEEN_SECONDS


def _former_breakers(former: GuardData | None) -> dict[int, Breaker]:
    """What was judged before, by a guard that was stopped too: no reset is asked for twice."""
    if former is None:
        return {}
    cards = {card.index: card for card in former.gpus}
    needs: dict[int, Held] = {worker.gpu: worker.held for worker in former.workers}
    return {
        index: remembered(held if held in ("reset", "reboot") else "", card)
        for index, card in cards.items()
        for held in [needs.get(index, "")]
    }
