# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="name-defined,valid-type,misc,untyped-decorator"
# ruff: noqa: F821, N802  dbus-next reads annotations as signatures and names as members
"""The same service on stock dbus-next: what its defects are shown on.

Run as ``python -m tests.integration.bus_stock_service ADDRESS [descriptors]``.
"""

import asyncio
import logging
import sys

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, PropertyAccess
from dbus_next.service import ServiceInterface, dbus_property, method

from tests.integration.held_wire import held_wire
from tests.integration.probe import FAULT, INTERFACE, NAME, ROOT, UNCLEAN, Probe


class StockProbe(ServiceInterface):
    def __init__(self, probe: Probe) -> None:
        super().__init__(INTERFACE)
        self.probe = probe

    @method()
    def Fail(self) -> "s":
        raise RuntimeError(FAULT)

    @method()
    async def Wait(self) -> "s":
        return await self.probe.wait()

    @method()
    async def Cancel(self) -> "u":
        return await self.probe.cancel()

    @method()
    def TakeLag(self) -> "d":
        return self.probe.take_lag()

    @method()
    def Echo(self, text: "s") -> "s":
        return text

    @method()
    def Unclean(self) -> "s":
        return UNCLEAN

    @dbus_property(access=PropertyAccess.READ)
    def State(self) -> "s":
        return "running"


async def main(address: str, *, descriptors: bool) -> None:
    probe = Probe()
    watch = asyncio.create_task(probe.watch_lag())
    async with held_wire(address) as held:
        bus = await MessageBus(held, BusType.SYSTEM, negotiate_unix_fd=descriptors).connect()
        bus.export(ROOT, StockProbe(probe))
        bus.export(f"{ROOT}/part", StockProbe(probe))
        await bus.request_name(NAME)
        print("ready", flush=True)
        await asyncio.Event().wait()
    watch.cancel()


if __name__ == "__main__":
    logging.disable()  # each fault's traceback, thousands of times
    asyncio.run(main(sys.argv[1], descriptors=sys.argv[2:] == ["descriptors"]))
