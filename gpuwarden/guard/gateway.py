# SPDX-License-Identifier: Apache-2.0
"""Asks the gateway, on behalf of whoever called on the bus."""

from pathlib import Path

from gpuwarden.bus.errors import BusError, Busy, Failed, InvalidArgument, Unavailable
from gpuwarden.control.requests import RESUME, PauseRequest, Request
from gpuwarden.control.socket import ControlError, ControlUnreachableError, ask_async
from gpuwarden.names import GATEWAY_CONTROL_SOCKET, GATEWAY_UNIT

# It answers from memory, but may be just restarting; busctl waits for 25 s.
ASK_SECONDS = 20.0
LONGEST_SECONDS = 86_400  # design.md, Gateway.Pause: a day

KINDS: dict[str, type[BusError]] = {"InvalidArgument": InvalidArgument, "Busy": Busy}


class GatewayControl:
    """The methods of org.gpuwarden1.Gateway.

    :param socket: where the gateway is asked.
    """

    def __init__(self, socket: Path = GATEWAY_CONTROL_SOCKET) -> None:
        self._socket = socket

    async def pause(self, seconds: int) -> None:
        """Refuse new requests for so long. Raises BusError."""
        if not 1 <= seconds <= LONGEST_SECONDS:
            raise InvalidArgument(f"{seconds} seconds: 1 to {LONGEST_SECONDS} are allowed")
        await self._ask(PauseRequest(seconds=seconds))

    async def resume(self) -> None:
        """End a pause now. Raises BusError."""
        await self._ask(Request(request=RESUME))

    async def _ask(self, request: Request) -> None:
        """One exchange; the errors of the socket become those of the bus."""
        try:
            await ask_async(self._socket, request.model_dump(), ASK_SECONDS)
        except ControlUnreachableError as error:
            raise Unavailable(f"{error} (systemctl status {GATEWAY_UNIT})") from error
        except ControlError as error:
            raise KINDS.get(error.kind, Failed)(str(error)) from error
