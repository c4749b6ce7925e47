# SPDX-License-Identifier: Apache-2.0
"""What the guard does for whoever called on the bus: the methods of Manager and Worker."""

from gpuwarden.guard.operations import Operations
from gpuwarden.guard.reaper import Reaper
from gpuwarden.guard.reload import Reloading, check_complete
from gpuwarden.guard.rolling import Rolling


class Commands:
    """The methods of org.gpuwarden1.Manager and org.gpuwarden1.Worker that change something."""

    def __init__(
        self, operations: Operations, rolling: Rolling, reaper: Reaper, reloading: Reloading
    ) -> None:
        self._operations = operations
        self._rolling = rolling
        self._reaper = reaper
        self._reloading = reloading

    async def start(self, number: int) -> None:
        """Start a worker, or give a drained one work again. Raises BusError."""
        self._operations.start(number)

    async def stop(self, number: int) -> None:
        """Drain and stop a worker. Raises BusError."""
        self._operations.stop(number)

    async def restart(self, number: int) -> None:
        """Drain and stop a worker, and start it again. Raises BusError."""
        self._operations.restart(number)

    async def drain(self, number: int) -> None:
        """Give a worker no new work. Raises BusError."""
        self._operations.drain(number)

    async def rolling_restart(self) -> None:
        """Restart all workers, one card at a time. Raises BusError."""
        self._rolling.begin()

    async def reload(self) -> None:
        """Take changed configuration files into use. Raises BusError."""
        check_complete(await self._reloading.reload())

    async def reap(self, pid: int) -> int:
        """End a process that holds a card's memory. Raises BusError."""
        return await self._reaper.reap(pid)
