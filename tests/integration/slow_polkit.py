# SPDX-License-Identifier: Apache-2.0
"""A polkit that thinks for ever; prints ``ready``, then each question and each one taken back.

Run as root as ``python -m tests.integration.slow_polkit ADDRESS``: it takes the identity of
polkit's user, who alone may own the name, but after it read its own files.
"""

import asyncio
import os
import pwd
import sys
from collections.abc import Sequence

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.interface import Argument, Exported, Handler, Interface, Method
from gpuwarden.bus.polkit import INTERFACE, NAME, PATH
from gpuwarden.bus.tree import ObjectTree

AUTHORITY: Interface[None] = Interface(
    INTERFACE,
    "",
    methods=(
        Method(
            "CheckAuthorization",
            "",
            inputs=(
                Argument("subject", "(sa{sv})"),
                Argument("action_id", "s"),
                Argument("details", "a{ss}"),
                Argument("flags", "u"),
                Argument("cancellation_id", "s"),
            ),
            outputs=(Argument("result", "(bba{ss})"),),
        ),
        Method("CancelCheckAuthorization", "", inputs=(Argument("cancellation_id", "s"),)),
    ),
)


async def check(
    _subject: object, action: str, _details: object, flags: int, question: str
) -> Sequence[object]:
    print("asked", action, flags, question, flush=True)
    await asyncio.Event().wait()
    return ((True, False, {}),)


def cancel(question: str) -> Sequence[object]:
    print("taken back", question, flush=True)
    return ()


async def main(address: str) -> None:
    objects = ObjectTree(PATH)
    handlers: dict[str, Handler] = {"CheckAuthorization": check, "CancelCheckAuthorization": cancel}
    objects.export(PATH, [Exported(AUTHORITY, lambda: None, handlers)])
    bus = Bus(address, objects)
    await bus.connect()
    await bus.own_name(NAME)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    user = pwd.getpwnam("polkitd")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    asyncio.run(main(sys.argv[1]))
