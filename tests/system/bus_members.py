# SPDX-License-Identifier: Apache-2.0
"""Asks everything there is of the bus as one user after the other; runs as root in the node itself.

    python3 bus_members.py all|acting|hear USER...

On gpuwarden's modules, and forking for each user: a start of an interpreter takes an emulated node
a second. Each user leaves a line of JSON: its name, and for each thing tried the interface, what it
is in the words of the documented matrix, the member, the verdict and what was answered.

What there is comes from introspection, so that no member can be forgotten.
"""

import asyncio
import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Coroutine
from typing import Any

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import AccessDenied, BusError, PropertyReadOnly
from gpuwarden.bus.library import Variant
from gpuwarden.bus.signals import DAEMON, DAEMON_PATH, Signal
from gpuwarden.names import BUS_NAME

PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
LOG_CONTROL = "org.freedesktop.LogControl1"
# One object of each kind.
PATHS = (
    "/org/gpuwarden1",
    "/org/gpuwarden1/gpu/1",
    "/org/gpuwarden1/worker/1",
    "/org/gpuwarden1/gateway",
    "/org/freedesktop/LogControl1",
)
# What changes as little as can be, where permission is given: a worker that is not there, PID 1.
ARGUMENTS: dict[str, list[Any]] = {
    "ReapOrphan": [1],
    "Override": ["alert", 60],
    "Release": [1],
    "Pause": [1],
    "GetHistory": [60],
}
SOME_WORKER = [4242]
READING = ("List", "Get", "Ping", "Introspect")
# What is heard of a card that is cooled by an order and of a worker that is killed.
HEARD = {"StateChanged", "WorkerStateChanged", "PropertiesChanged"}
HEAR_SECONDS = 90.0
LONGEST_SECONDS = 240
CARD = f"busctl call {BUS_NAME} /org/gpuwarden1/gpu/1 {BUS_NAME}.Thermal"

Tried = list[str]
Call = tuple[str, str, str, list[Any]]  # interface, member, signature, body


def short(interface: str) -> str:
    """As the matrix says it."""
    return interface.removeprefix(f"{BUS_NAME}.").removeprefix("org.freedesktop.")


async def connected() -> Bus:
    bus = Bus()
    await bus.connect(30)
    return bus


async def introspected() -> dict[str, ET.Element]:
    """Each object's interfaces, as root sees them."""
    bus = await connected()
    found = {}
    for path in PATHS:
        (xml,) = await bus.call(BUS_NAME, path, INTROSPECTABLE, "Introspect")
        found[path] = ET.fromstring(xml)
    await bus.close()
    return found


class Asker:
    """One user's client."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.tried: list[Tried] = []

    async def everything(self, objects: dict[str, ET.Element], *, only_acting: bool) -> None:
        """Every member of every object."""
        for path, node in objects.items():
            for interface in node.iter("interface"):
                name = interface.get("name", "")
                if name == PROPERTIES:
                    continue  # tried with each property
                for method in interface.iter("method"):
                    await self._method(path, name, method, only_acting=only_acting)
                for each in interface.iter("property"):
                    await self._property(path, name, each, only_acting=only_acting)

    async def _method(
        self, path: str, interface: str, method: ET.Element, *, only_acting: bool
    ) -> None:
        name = method.get("name", "")
        if only_acting and name.startswith(READING):
            return
        inputs = [a.get("type", "") for a in method.iter("arg") if a.get("direction") == "in"]
        body = ARGUMENTS.get(name, SOME_WORKER if inputs else [])
        await self._try(
            path, interface, f"{name}()", name, (interface, name, "".join(inputs), body)
        )

    async def _property(
        self, path: str, interface: str, each: ET.Element, *, only_acting: bool
    ) -> None:
        name, writable = each.get("name", ""), each.get("access") == "readwrite"
        where = [interface, name]
        get = (PROPERTIES, "Get", "ss", where)
        if not only_acting:
            await self._try(path, interface, "read its properties", f"get {name}", get)
        if only_acting and not writable:
            return
        what = "write any other property" if interface == LOG_CONTROL else "write a property"
        value = Variant("s", "info" if name == "LogLevel" else "journal")
        await self._try(
            path,
            interface,
            f"write {name}" if writable else what,
            f"set {name}",
            (PROPERTIES, "Set", "ssv", [*where, value]),
        )

    async def _try(self, path: str, interface: str, what: str, member: str, call: Call) -> None:
        try:
            await self._bus.call(BUS_NAME, path, *call, 60.0)
        except BusError as error:
            verdict, answer = verdict_of(error), f"{error.name}: {error.text}"
        else:
            verdict, answer = "yes", "answered"
        self.tried.append([short(interface), what, f"{path} {member}", verdict, answer])


def verdict_of(error: BusError) -> str:
    """In the matrix's words. A refusal for another reason than who asks is a yes."""
    if isinstance(error, AccessDenied):
        return "password" if "administrator's password" in error.text else "no"
    return "no" if isinstance(error, PropertyReadOnly) else "yes"


async def ask(user: str, objects: dict[str, ET.Element], *, only_acting: bool) -> None:
    """Try everything, tell what came of it."""
    bus = await connected()
    asker = Asker(bus)
    await asker.everything(objects, only_acting=only_acting)
    await bus.close()
    print(json.dumps([user, asker.tried]), flush=True)


async def listen(user: str, ready: int, go: int) -> None:
    """Hear all there is, eavesdropping included, until ``go`` is closed; root until it has all."""
    bus = await connected()
    heard: set[str] = set()
    enough = asyncio.Event()

    def hear(signal: Signal) -> None:
        heard.add(signal.member)
        if heard >= HEARD and user == "root":
            enough.set()

    await bus.subscribe(BUS_NAME, None, None, None, hear)
    daemon = (DAEMON, DAEMON_PATH, DAEMON)
    with contextlib.suppress(AccessDenied):
        await bus.call(*daemon, "AddMatch", "s", [f"eavesdrop='true',sender='{BUS_NAME}'"])
        heard.add("eavesdropping")
    os.write(ready, b".")
    if user != "root":
        asyncio.get_running_loop().add_reader(go, enough.set)
    async with asyncio.timeout(HEAR_SECONDS):
        await enough.wait()
    await bus.call(*daemon, "GetId")  # whatever was sent before is here now
    await bus.close()
    tried = [["", "hear", member, "yes", ""] for member in sorted(heard)]
    print(json.dumps([user, tried]), flush=True)


def fork(user: str, work: Coroutine[Any, Any, None]) -> int:
    """Do ``work`` as ``user`` in a process of its own."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        work.close()
        return child
    status = 1
    try:
        account = pwd.getpwnam(user)
        os.setgroups(os.getgrouplist(user, account.pw_gid))
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        asyncio.run(work)
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(children: list[int]) -> int:
    """The worst exit status."""
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def hear(users: list[str]) -> int:
    """All users listen while a card is cooled by an order and a worker is killed."""
    ready, told_ready = os.pipe()
    go, hold = os.pipe()
    os.set_inheritable(hold, False)
    listeners = {user: fork(user, listen(user, told_ready, go)) for user in users}
    for _ in users:
        os.read(ready, 1)
    subprocess.run(f"{CARD} Override su alert 600", shell=True, check=True)
    subprocess.run("systemctl kill --signal=KILL medgemma-worker@1", shell=True, check=True)
    status = wait([listeners.pop("root")])
    os.write(hold, b"." * len(listeners))
    subprocess.run(f"{CARD} ClearOverride", shell=True, check=True)
    return max(status, wait(list(listeners.values())))


def main(what: str, *users: str) -> int:
    """0 if all could be tried."""
    signal.alarm(LONGEST_SECONDS)  # a client that is stuck ends all of it
    if what == "hear":
        return hear(list(users))
    objects = asyncio.run(introspected())
    only_acting = what == "acting"
    return max(wait([fork(user, ask(user, objects, only_acting=only_acting))]) for user in users)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
