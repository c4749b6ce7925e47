"""The guard's real objects in a process of their own, to be maltreated.

Run as ``python -m tests.integration.bus_guard_service ADDRESS FOLDER``; prints ``ready`` when it
owns its name. Cards' thermal guards and gateway answer below FOLDER; what is wrong with the service
is on standard error.
"""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from gpuwarden.bus.bus import Bus
from gpuwarden.control.requests import PauseRequest, Request
from gpuwarden.control.socket import serve
from gpuwarden.guard.permission import Permission
from gpuwarden.names import BUS_NAME
from gpuwarden.systemd.journal import set_up_logging
from tests.integration.bus_peers import Guarded
from tests.integration.bus_states import state
from tests.integration.thermal_peer import thermal_peers


def pause(request: dict[str, Any]) -> dict[str, Any]:
    PauseRequest.model_validate(request)
    return {}


def resume(request: dict[str, Any]) -> dict[str, Any]:
    Request.model_validate(request)
    return {}


async def main(address: str, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(thermal_peers(folder, 0, 1))
        handlers = {"pause": pause, "resume": resume}
        gateway = await serve(folder / "gateway.sock", handlers, {os.getuid()})
        stack.push_async_callback(gateway.close)
        bus = Bus(address)
        bus.authorize_by(Permission(bus).authorize)
        Guarded(bus, state(), folder)
        await bus.connect()
        await bus.own_name(BUS_NAME)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    set_up_logging("warning")
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
