"""Which cards' workers are held back now."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from gpuwarden.control.states import GuardData, Held, ThermalData
from gpuwarden.guard.heat import FREE, Hold, next_hold
from gpuwarden.values import ServiceState

# From a thermal guard's word that it lets go until its next snapshot says so: it publishes each
# second, and a snapshot is believed for three.
RELEASE_SEEN_SECONDS = 5.0


class Holds:
    """The holds of all cards.

    :param former: what a former guard of this boot published: cards that it held for heat stay
        held until they have cooled.
    """

    def __init__(self, former: GuardData | None) -> None:
        hot = set[int]()
        if former is not None and former.state is not ServiceState.STOPPING:
            hot = {worker.gpu for worker in former.workers if worker.held == "heat"}
        self._holds = {index: Hold(heat=True, stops=1) for index in hot}
        self._releasing: dict[int, float] = {}
        self._taken: dict[int, Held] = dict.fromkeys(hot, "heat")

    def look(
        self, cards: Iterable[int], thermal: Mapping[int, ThermalData], now_seconds: float
    ) -> None:
        """Take a look at every card; see :func:`gpuwarden.guard.heat.next_hold`."""
        for index in cards:
            hold = self._holds.get(index, FREE)
            self._holds[index] = next_hold(hold, thermal.get(index), now_seconds)

    def held(self, gpu_index: int) -> Held:
        """Why the card's workers are held back; empty where they are not."""
        held = self._holds.get(gpu_index, FREE).held
        if not held and time.monotonic() < self._releasing.get(gpu_index, -math.inf):
            return "released"
        return held

    def all_held(self) -> dict[int, Held]:
        """Every card whose workers are held back."""
        cards = {*self._holds, *self._releasing}
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
