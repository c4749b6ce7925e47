# SPDX-License-Identifier: Apache-2.0
"""An hour of one card in memory, a row a second, of fixed size. Pure."""

import math
from array import array
from collections.abc import Iterator, Sequence

from gpuwarden.control.requests import HistoryRow
from gpuwarden.thermal.decision import Reading
from gpuwarden.values import ThermalState

KEPT_ROWS = 3600
STATES = tuple(ThermalState)
# unix microseconds, celsius, its lowest and highest, memory, watts, their highest, limit, state
WIDTH = 9


class History:
    """Means and extremes of the samples of each second.

    Allocated at once, so that an hour of work doesn't grow the process.
    """

    def __init__(self, rows: int = KEPT_ROWS) -> None:
        self._rows = rows
        self._cells = array("d", bytes(8 * WIDTH * rows))
        self._count = 0
        self._open: list[Reading] = []

    def see(self, reading: Reading) -> None:
        """Take in a sample of the running second."""
        self._open.append(reading)

    def close_second(
        self, unix_microseconds: int, limit_watts: float | None, state: ThermalState
    ) -> None:
        """End the running second. One without a sample leaves no row: nothing is known of it."""
        samples, self._open = self._open, []
        if not samples:
            return
        die = [sample.die_celsius for sample in samples]
        memory = [s.memory_celsius for s in samples if s.memory_celsius is not None]
        watts = [s.power_watts for s in samples if s.power_watts is not None]
        row = (
            float(unix_microseconds),
            sum(die) / len(die),
            min(die),
            max(die),
            max(memory, default=math.nan),
            sum(watts) / len(watts) if watts else math.nan,
            max(watts, default=math.nan),
            math.nan if limit_watts is None else limit_watts,
            float(STATES.index(state)),
        )
        place = self._count % self._rows * WIDTH
        self._cells[place : place + WIDTH] = array("d", row)
        self._count += 1

    def after(self, unix_microseconds: int, limit: int) -> tuple[list[HistoryRow], bool]:
        """The rows after that moment, oldest first, and whether there are more than ``limit``."""
        found: list[HistoryRow] = []
        for cells in self._from_oldest():
            if cells[0] <= unix_microseconds:
                continue
            if len(found) == limit:
                return found, True
            found.append(_row(cells))
        return found, False

    def _from_oldest(self) -> Iterator[Sequence[float]]:
        for number in range(max(0, self._count - self._rows), self._count):
            place = number % self._rows * WIDTH
            yield self._cells[place : place + WIDTH]


def _row(cells: Sequence[float]) -> HistoryRow:
    return HistoryRow(
        unix_microseconds=int(cells[0]),
        celsius=round(cells[1], 2),
        celsius_lowest=cells[2],
        celsius_highest=cells[3],
        memory_celsius=_known(cells[4]),
        watts=_known(cells[5]),
        watts_highest=_known(cells[6]),
        limit_watts=_known(cells[7]),
        state=STATES[int(cells[8])],
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)
