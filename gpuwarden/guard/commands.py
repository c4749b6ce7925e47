"""What the guard does for whoever called on the bus: the methods of Manager and Worker."""

from gpuwarden.bus.errors import Unavailable
from gpuwarden.guard.reload import Reloading, check_complete


class Commands:
    """The methods of org.gpuwarden1.Manager and org.gpuwarden1.Worker that change something."""

    def __init__(self, reloading: Reloading) -> None:
        self._reloading = reloading

    async def start(self, number: int) -> None:
        """Start a worker, or give a drained one work again. Raises BusError."""
        raise Unavailable("not yet")

    async def stop(self, number: int) -> None:
        """Drain and stop a worker. Raises BusError."""
        raise Unavailable("not yet")

    async def restart(self, number: int) -> None:
        """Drain and stop a worker, and start it again. Raises BusError."""
        raise Unavailable("not yet")

    async def drain(self, number: int) -> None:
        """Give a worker no new work. Raises BusError."""
        raise Unavailable("not yet")

    async def rolling_restart(self) -> None:
        """Restart all workers, one card at a time. Raises BusError."""
        raise Unavailable("not yet")

    async def reload(self) -> None:
        """Take changed configuration files into use. Raises BusError."""
        check_complete(await self._reloading.reload())

    async def reap(self, pid: int) -> int:
        """End a process that holds a card's memory. Raises BusError."""
        raise Unavailable("not yet")
