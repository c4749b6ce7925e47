# SPDX-License-Identifier: Apache-2.0
"""The guard's real objects in a process of their own, to be maltreated.

Run as ``python -m tests.integration.bus_guard_service ADDRESS FOLDER``; prints ``ready`` when it
owns its name. A real supervisor and gateway stand behind the objects, over a stand-in of systemd;
cards' thermal guards answer below FOLDER; what is wrong with the service is on standard error.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.guard.permission import Permission
from gpuwarden.names import BUS_NAME
from gpuwarden.systemd.journal import set_up_logging
from tests.integration.bus_peers import Guarded
from tests.integration.held_wire import held_wire
from tests.integration.supervised_node import supervised_at
from tests.integration.thermal_peer import thermal_peers

WORKERS = 2


async def main(address: str, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        patch = pytest.MonkeyPatch()
        stack.callback(patch.undo)
        await stack.enter_async_context(thermal_peers(folder, 0, 1))
        node = await stack.enter_async_context(supervised_at(address, folder, patch))
        bus = Bus(await stack.enter_async_context(held_wire(address)))
        bus.authorize_by(Permission(bus).authorize)
        await node.open_up()
        data = await node.until(lambda data: data.workers_ready == WORKERS)
        node.supervisor.publish = Guarded(bus, data, folder, node.supervisor).publish
        await bus.connect()
        await bus.own_name(BUS_NAME)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    set_up_logging("warning")
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
