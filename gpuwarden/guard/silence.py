# SPDX-License-Identifier: Apache-2.0
"""Cards whose thermal guard has fallen silent: told loudly, once, and again when it is back."""

import logging
from collections.abc import Collection, Iterable, Mapping

from gpuwarden.control.states import Card
from gpuwarden.names import thermal_unit
from gpuwarden.systemd.events import Event, tell

START_SECONDS = 30.0  # at a boot each needs a Python's start, all at once, before its first word


class Silence:
    """Which cards nobody is known to watch.

    A guard that has not spoken yet has time to start; one that has spoken has none.
    """

    def __init__(self, now_seconds: float) -> None:
        self._began_seconds = now_seconds
        self._heard: set[int] = set()
        self._silent: set[int] = set()

    def look(
        self,
        cards: Iterable[Card],
        heard: Collection[int],
        workers: Mapping[int, Collection[int]],
        now_seconds: float,
    ) -> None:
        """Tell what has changed.

        :param heard: the cards whose guards say something now.
        :param workers: by card, those that run on it.
        """
        starting = now_seconds < self._began_seconds + START_SECONDS
        for card in cards:
            if card.index in heard:
                self._hear(card)
            elif card.present and (card.index in self._heard or not starting):
                self._miss(card, workers.get(card.index, ()))

    def _hear(self, card: Card) -> None:
        self._heard.add(card.index)
        if card.index in self._silent:
            self._silent.discard(card.index)
            _tell_back(card)

    def _miss(self, card: Card, workers: Collection[int]) -> None:
        if card.index not in self._silent:
            self._silent.add(card.index)
            _tell_silent(card, sorted(workers))


def _tell_silent(card: Card, workers: list[int]) -> None:
    unit = thermal_unit(card.index)
    listed = " and ".join(f"worker {number}" for number in workers)
    held = f"one request at a time for {listed}; " if workers else ""
    tell(
        Event.THERMAL_GUARD_SILENT,
        f"GPU {card.index}: nobody watches its heat, {unit} says nothing; {held}"
        f"bring it back with systemctl start {unit}",
        logging.ERROR,
        GPU=card.index,
        GPU_UUID=card.uuid,
    )


def _tell_back(card: Card) -> None:
    tell(
        Event.THERMAL_GUARD_BACK,
        f"GPU {card.index}: its heat is watched again",
        GPU=card.index,
        GPU_UUID=card.uuid,
    )
