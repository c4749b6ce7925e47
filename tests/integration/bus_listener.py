# SPDX-License-Identifier: Apache-2.0
"""A listener of another user: prints ``ready NAME``, each signal of a peer, ``gone`` at its end.

It eavesdrops where the bus lets it, and prints ``eavesdrops`` then.

Run as root as ``python -m tests.integration.bus_listener ADDRESS PEER UID GID [GROUP...]``: it
takes the user's identity before it connects, but after it read its own files, which that user may
not be able to.
"""

import asyncio
import contextlib
import os
import sys

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import AccessDenied
from gpuwarden.bus.signals import DAEMON, DAEMON_PATH, Signal


async def main(address: str, peer: str) -> None:
    bus = Bus(address)
    await bus.connect()
    gone = asyncio.Event()

    def owner_changed(signal: Signal) -> None:
        if signal.body[0] == peer and not signal.body[2]:
            gone.set()

    await bus.subscribe(DAEMON, DAEMON_PATH, DAEMON, "NameOwnerChanged", owner_changed)
    await bus.subscribe(peer, None, None, None, lambda one: print(one.member, one.body, flush=True))
    eavesdrop = f"eavesdrop='true',type='signal',sender='{peer}'"
    print("ready", bus.unique_name, flush=True)
    with contextlib.suppress(AccessDenied):
        await bus.call(DAEMON, DAEMON_PATH, DAEMON, "AddMatch", "s", [eavesdrop])
        print("eavesdrops", flush=True)
    await gone.wait()
    print("gone", flush=True)
    await bus.close()


if __name__ == "__main__":
    uid, gid, *groups = map(int, sys.argv[3:])
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)
    asyncio.run(main(sys.argv[1], sys.argv[2]))
