"""Asks the gateway, on behalf of whoever called on the bus."""

from gpuwarden.bus.errors import Unavailable


class GatewayControl:
    """The methods of org.gpuwarden1.Gateway."""

    async def pause(self, seconds: int) -> None:
        """Refuse new requests for so long. Raises BusError."""
        raise Unavailable("not yet")

    async def resume(self) -> None:
        """End a pause now. Raises BusError."""
        raise Unavailable("not yet")
