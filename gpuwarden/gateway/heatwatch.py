# SPDX-License-Identifier: Apache-2.0
"""Reads what the thermal guards publish, twice a second, for the cards that have workers.

Files alone: no guard, however hung, can hold the front door up.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.control.snapshot import (
    SnapshotError,
    boot_id,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.states import ThermalData
from gpuwarden.gateway.heat import (
    COOL,
    UNKNOWN,
    CardHeat,
    Moment,
    Published,
    is_cooler,
    is_news,
    judge,
    sentence,
)
from gpuwarden.gateway.work import CardLimits
from gpuwarden.names import thermal_snapshot_file
from gpuwarden.systemd.events import Event, tell

LOOK_SECONDS = 0.5  # a change takes effect within a second; 8 cards cost 0.2 % of a core

FileOfCard = Callable[[int], Path]


@dataclass
class _Watched:
    """A card, the file as it was read last, and what the journal was told."""

    file: Path
    signature: tuple[int, int, int] | None = None
    published: Published | str = ""
    heat: CardHeat = UNKNOWN
    told: CardHeat = COOL

    def read(self) -> Published | str:
        """The guard's state, or why it can't be had; an unchanged file isn't read again."""
        try:
            status = self.file.stat()
        except OSError as error:
            self.signature = None
            return f"{self.file}: {error.strerror}"
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if signature != self.signature:
            try:
                self.published = read_snapshot(self.file, ThermalData)
            except SnapshotError as error:
                self.published = str(error)
            self.signature = signature
        return self.published


class HeatWatch:
    """Tells ``on_limits`` what each card's workers may be given, at first and whenever it changes.

    :param file_of: where the guard of a card publishes.
    """

    def __init__(
        self,
        on_limits: Callable[[int, CardLimits], None],
        file_of: FileOfCard = thermal_snapshot_file,
    ) -> None:
        self._on_limits = on_limits
        self._file_of = file_of
        self._boot_id = boot_id()
        self._cards: dict[int, _Watched] = {}

    def watch(self, card: int) -> None:
        """A worker of this card is here: look after it from now on, starting with now."""
        if card not in self._cards:
            watched = self._cards[card] = _Watched(self._file_of(card))
            self._look_at(card, watched)
            self._on_limits(card, watched.heat.limits)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Look at all cards now."""
        for card, watched in self._cards.items():
            before = watched.heat.limits
            self._look_at(card, watched)
            limits = watched.heat.limits
            if (limits, limits.state) != (before, before.state):
                self._on_limits(card, limits)

    def _look_at(self, card: int, watched: _Watched) -> None:
        published = watched.read()
        # The clock after the file: one that was written in between would be of the future.
        now = Moment(self._boot_id, boottime_nanoseconds())
        watched.heat = judge(watched.heat, card, published, now)
        if is_news(watched.told, watched.heat):
            tell_heat(card, watched.told, watched.heat)
            watched.told = watched.heat


def tell_heat(card: int, told: CardHeat, heat: CardHeat) -> None:
    """Write to the journal what a card's workers are given from now on, and why."""
    limits = heat.limits
    tell(
        Event.GATEWAY_HEAT,
        f"GPU {card}: {sentence(limits)}; {heat.reason}",
        logging.WARNING if is_cooler(told, heat) else logging.INFO,
        GPU=card,
        REASON=heat.reason,
        BATCH_LIMIT="" if limits.batch_limit is None else limits.batch_limit,
        DISPATCH_DUTY=f"{limits.duty:g}",
        ADMISSION="paused" if limits.paused else "open",
    )
