# SPDX-License-Identifier: Apache-2.0
"""The service to be maltreated, on our bus, in a process of its own.

Run as ``python -m tests.integration.bus_service ADDRESS``; prints ``ready`` when it owns its name.
"""

import asyncio
import sys
from collections.abc import Sequence

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.caller import current_caller
from gpuwarden.bus.interface import Argument, Emits, Exported, Interface, Method, Property
from gpuwarden.bus.tree import ObjectTree
from tests.integration.held_wire import held_wire
from tests.integration.probe import FAULT, INTERFACE, NAME, ROOT, UNCLEAN, Probe


def fail() -> Sequence[object]:
    raise RuntimeError(FAULT)


PROBE: Interface[None] = Interface(
    INTERFACE,
    "",
    methods=(
        Method("Fail", "", outputs=(Argument("text", "s"),)),
        Method("Wait", "", outputs=(Argument("text", "s"),)),
        Method("Cancel", "", outputs=(Argument("count", "u"),)),
        Method("TakeLag", "", outputs=(Argument("seconds", "d"),)),
        Method("Echo", "", inputs=(Argument("text", "s"),), outputs=(Argument("text", "s"),)),
        Method("Who", "", inputs=(Argument("delay", "d"),), outputs=(Argument("sender", "s"),)),
        Method("Unclean", "", outputs=(Argument("text", "s"),), answer=lambda _: (UNCLEAN,)),
        Method("Act", "", action=f"{NAME}.act"),
    ),
    properties=(Property("State", "s", Emits.TRUE, lambda _: "running", ""),),
)


def exported(probe: Probe) -> Exported[None]:
    async def wait() -> Sequence[object]:
        return (await probe.wait(),)

    async def cancel() -> Sequence[object]:
        return (await probe.cancel(),)

    async def who(delay_seconds: float) -> Sequence[object]:
        await asyncio.sleep(delay_seconds)
        return (current_caller().sender,)

    return Exported(
        PROBE,
        lambda: None,
        {
            "Fail": fail,
            "Wait": wait,
            "Cancel": cancel,
            "TakeLag": lambda: (probe.take_lag(),),
            "Echo": lambda text: (text,),
            "Who": who,
            "Act": lambda: (),
        },
    )


async def serve(address: str, probe: Probe) -> None:
    objects = ObjectTree(ROOT)
    objects.export(ROOT, [exported(probe)])
    objects.export(f"{ROOT}/part", [exported(probe)])
    async with held_wire(address) as held:
        bus = Bus(held, objects)
        await bus.connect()
        await bus.own_name(NAME)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def main(address: str) -> None:
    probe = Probe()
    watch = asyncio.create_task(probe.watch_lag())
    await serve(address, probe)
    watch.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
