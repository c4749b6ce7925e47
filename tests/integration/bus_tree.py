# SPDX-License-Identifier: Apache-2.0
"""The whole service as busctl and gdbus would see it, one line a member, for the golden file.

``python -m tests.integration.bus_tree`` writes it again.
"""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.introspection import EMITS_CHANGED
from gpuwarden.names import BUS_NAME
from tests.integration.bus_peers import client, guarded
from tests.integration.private_bus import private_bus

GOLDEN = Path(__file__).parent / "data/bus-tree.txt"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


async def tree(connection: Bus) -> str:
    """Every object below /, and every member of each."""
    lines: list[str] = []
    waiting = ["/"]
    while waiting:
        path = waiting.pop(0)
        (xml,) = await connection.call(BUS_NAME, path, INTROSPECTABLE, "Introspect")
        node = ET.fromstring(xml)
        lines += [path, *members(node)]
        below = "" if path == "/" else path
        waiting += [f"{below}/{child.get('name')}" for child in node.findall("node")]
    return "\n".join(lines) + "\n"


def members(node: ET.Element) -> Iterator[str]:
    """One object's members, in the order in which it tells them."""
    for interface in node.iter("interface"):
        yield f"  {interface.get('name')}"
        for member in interface:
            yield f"    {member.tag} {member.get('name')}{shape(member)}"


def shape(member: ET.Element) -> str:
    """Types, names, direction; of a property access and what its changes emit."""
    if member.tag == "property":
        emits = [one.get("value") for one in member if one.get("name") == EMITS_CHANGED]
        return f" {member.get('type')} {member.get('access')} {' '.join(map(str, emits))}"
    arguments = [f"{one.get('type')} {one.get('name')}" for one in member if ins(one)]
    outputs = [f"{one.get('type')} {one.get('name')}" for one in member if not ins(one)]
    told = f" -> {', '.join(outputs)}" if outputs else ""
    return f"({', '.join(arguments)}){told}"


def ins(argument: ET.Element) -> bool:
    return argument.get("direction") != "out"


async def main() -> None:
    async with private_bus() as bus, guarded(bus), client(bus) as connection:
        GOLDEN.write_text(await tree(connection), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
