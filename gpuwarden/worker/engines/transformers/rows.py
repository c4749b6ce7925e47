# SPDX-License-Identifier: Apache-2.0
"""Which sequence is in which row of the cache. Pure.

A step runs the first rows up to the last one in use, so rows are kept close together: whoever
joins gets the lowest free row, and rows are moved down once that makes the step smaller.
"""

from typing import Dict, List, Optional, Sequence, Tuple

from gpuwarden.worker.engines.transformers.shapes import bucket


class Rows:
    """Rows by slot."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._row_of: Dict[int, int] = {}

    def __getitem__(self, slot: int) -> int:
        return self._row_of[slot]

    def __contains__(self, slot: object) -> bool:
        return slot in self._row_of

    def take(self, slot: int) -> int:
        """A free row for a slot: the lowest."""
        used = set(self._row_of.values())
        row = next(row for row in range(self._count) if row not in used)
        self._row_of[slot] = row
        return row

    def free(self, slot: int) -> Optional[int]:
        """Its row is free; None if it had none."""
        return self._row_of.pop(slot, None)

    def moves(self, running: Sequence[int], buckets: Sequence[int]) -> List[Tuple[int, int]]:
        """Exchanges of rows that let a step with these slots be as small as it can be.

        They are done here; the cache is to follow, in this order.
        """
        if not running:
            return []
        wanted = bucket(len(running), buckets)
        high = sorted(self._row_of[slot] for slot in running if self._row_of[slot] >= wanted)
        low = {self._row_of[slot] for slot in running if self._row_of[slot] < wanted}
        free = [row for row in range(wanted) if row not in low]
        exchanges = list(zip(high, free))
        slot_of = {row: slot for slot, row in self._row_of.items()}
        for one, other in exchanges:
            first, second = slot_of.get(one), slot_of.get(other)
            if first is not None:
                self._row_of[first] = other
            if second is not None:
                self._row_of[second] = one
        return exchanges

    def extent(self, running: Sequence[int]) -> int:
        """How many rows a step of these slots must run."""
        return max(self._row_of[slot] for slot in running) + 1
