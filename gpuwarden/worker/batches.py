"""Which requests run together: a batch is complete when nobody in it is awaited any more.

The gateway forms the batches and says with each JOB how many belong to it. A member that fails
or is cancelled leaves; the rest goes on. A card that runs hot has a limit of its own: a batch that
was formed before it came is run in parts. Pure: no clock, no I/O.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Deque, Dict, List, Optional, Set, Tuple

BatchKey = Tuple[int, int]  # connection, batch number


@dataclass
class _Forming:
    count: int
    arrived: int = 0
    awaited: Set[int] = field(default_factory=set)
    prepared: List[int] = field(default_factory=list)

    def complete(self) -> bool:
        return self.arrived >= self.count and not self.awaited


class BatchTable:
    """Batches on their way to the GPU; requests are known by their serial.

    :ivar limit: requests that may run together; None: as many as the gateway put together.
    """

    def __init__(self) -> None:
        self.limit: Optional[int] = None
        self._forming: Dict[BatchKey, _Forming] = {}
        self._complete: Deque[List[int]] = deque()

    def add(self, key: BatchKey, serial: int, count: int) -> None:
        """A JOB of a batch of ``count`` has come."""
        batch = self._forming.setdefault(key, _Forming(max(1, count)))
        batch.arrived += 1
        batch.awaited.add(serial)

    def prepared(self, key: BatchKey, serial: int) -> None:
        """A request is ready for the GPU."""
        batch = self._forming[key]
        batch.awaited.discard(serial)
        batch.prepared.append(serial)
        self._settle(key)

    def leave(self, key: BatchKey, serial: int) -> None:
        """A request won't run: its batch goes on without it."""
        batch = self._forming.get(key)
        if batch:
            batch.awaited.discard(serial)
            if serial in batch.prepared:
                batch.prepared.remove(serial)
            self._settle(key)
            return
        for members in self._complete:
            if serial in members:
                members.remove(serial)

    def forget(self, connection: int) -> None:
        """A connection has ended: what is incomplete will never be complete."""
        for key in [key for key in self._forming if key[0] == connection]:
            del self._forming[key]

    def take(self, most: Optional[int] = None) -> Optional[List[int]]:
        """The next complete batch, or as much of it as may run together; None if there is none.

        :param most: take no more.
        """
        while self._complete:
            members = self._complete.popleft()
            size = min(most or len(members), self.limit or len(members))
            if members[size:]:
                self._complete.appendleft(members[size:])
            if members:
                return members[:size]
        return None

    def waiting(self) -> bool:
        """Whether a complete batch waits for the GPU."""
        return any(self._complete)

    def _settle(self, key: BatchKey) -> None:
        if self._forming[key].complete():
            self._complete.append(sorted(self._forming.pop(key).prepared))
