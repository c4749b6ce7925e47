# SPDX-License-Identifier: Apache-2.0
# What a broken or hostile client, or a sick bus daemon, can do to a service: shown on stock
# dbus-next 0.2.3, and gone in ours. (The other defects: test_bus_defects.py.)

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType
from dbus_next.message import Message

from gpuwarden.bus.connection import HardenedMessageBus
from gpuwarden.bus.errors import (
    Disconnected,
    LimitsExceeded,
)
from gpuwarden.bus.serving import CallServer
from gpuwarden.bus.tree import ObjectTree
from tests.integration.bus_peers import (
    OURS,
    STOCK,
    abuse,
    client,
    delay_seconds,
    lag_seconds,
    probe,
    service,
)
from tests.integration.private_bus import (
    REPOSITORY,
    PrivateBus,
    private_bus,
    rss_bytes,
)
from tests.integration.probe import INTERFACE, NAME, ROOT
from tests.open_files import held_files, open_files

PEER = "org.freedesktop.DBus.Peer"


def ignore(_: object) -> None:
    """What to do with signals here."""


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus() as running:
        yield running


# 1: starvation


async def flooded(bus: PrivateBus, module: str) -> tuple[float, float]:
    """What 10,000 calls of one client cost: the service's longest stall, another's call behind it.

    Both in seconds of the service's CPU.
    """
    async with client(bus) as other, service(module, bus, held_for=other) as process:
        await lag_seconds(other)
        flood = abuse(bus, "flood", 10_000)
        wait = await delay_seconds(process, flood, lambda: other.call(NAME, ROOT, PEER, "Ping"))
        stall = await lag_seconds(other)
    print(f"{module}: stall {stall:.3f} s, another's call {wait:.3f} s")
    return stall, wait


async def test_a_flood_of_calls_stalls_nobody_else(bus: PrivateBus) -> None:
    # Against each other: a busy machine makes both slower. The promise: test_bus_flood.py.
    stall, wait = await flooded(bus, OURS)
    stock_stall, stock_wait = await flooded(bus, STOCK)
    assert stall * 3 < stock_stall
    assert wait * 2 < stock_wait


# 2: a cache that grows for ever


async def signature_growth_bytes(bus: PrivateBus, module: str) -> int:
    async with service(module, bus) as process, client(bus) as other:
        await probe(other, "TakeLag")
        before = rss_bytes(process.pid)
        await abuse(bus, "signatures", 1000)
        await probe(other, "TakeLag", timeout_seconds=30)
        return rss_bytes(process.pid) - before


async def test_strange_signatures_do_not_fill_memory(bus: PrivateBus) -> None:
    ours = await signature_growth_bytes(bus, OURS)
    stock = await signature_growth_bytes(bus, STOCK)
    print(f"1,000 signatures: ours {ours / 2**20:.1f} MB, stock {stock / 2**20:.1f} MB")
    assert ours < 10 * 2**20
    assert stock > 20 * 2**20


# 3: large messages


async def big_message(bus: PrivateBus, module: str) -> float:
    async with service(module, bus), client(bus) as other:
        await lag_seconds(other)
        await abuse(bus, "big", 8)
        return await lag_seconds(other)


async def test_a_large_call_is_not_parsed(bus: PrivateBus) -> None:
    # Against each other: a busy machine makes both slower.
    assert await big_message(bus, OURS) * 3 < await big_message(bus, STOCK)


async def test_the_sender_of_a_large_call_is_told(bus: PrivateBus) -> None:
    async with service(OURS, bus), client(bus) as other:
        with pytest.raises(LimitsExceeded):
            await probe(other, "Echo", "s", ["x" * 100_000])
        assert await probe(other, "Echo", "s", ["still here"]) == "still here"


# 4: end of file during authentication

HANG_UP = """
import asyncio, sys
async def main(kind, path):
    async def hang_up(reader, writer):
        await reader.readline()
        writer.close()
    await asyncio.start_unix_server(hang_up, path)
    address = "unix:path=" + path
    if kind == "stock":
        from dbus_next.aio import MessageBus
        connecting = MessageBus(address).connect()
    else:
        from gpuwarden.bus.connection import HardenedMessageBus
        from gpuwarden.bus.serving import CallServer
        from gpuwarden.bus.tree import ObjectTree
        server = CallServer(ObjectTree("/org/gpuwarden1"))
        connecting = HardenedMessageBus(address, server, print).open()
    print("tries", flush=True)
    try:
        await asyncio.wait_for(connecting, 1)
    except Exception as error:
        print(type(error).__name__)
asyncio.run(main(*sys.argv[1:]))
"""


async def connects_to_hang_up(kind: str, path: Path, patience_seconds: float) -> str:
    """What the connection attempt ended with; "wedged" if not even its time limit ended it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HANG_UP,
        kind,
        str(path),
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"tries\n"
    try:
        async with asyncio.timeout(patience_seconds):
            output, _ = await process.communicate()
        return output.decode().strip()
    except TimeoutError:
        process.kill()
        await process.wait()
        return "wedged"


async def test_a_bus_that_hangs_up_early_is_an_error(tmp_path: Path) -> None:
    ours, stock = await asyncio.gather(
        connects_to_hang_up("ours", tmp_path / "ours", patience_seconds=30),
        connects_to_hang_up("stock", tmp_path / "stock", patience_seconds=2),
    )
    assert (ours, stock) == ("Disconnected", "wedged")


# 10: sockets


async def test_closed_connections_leave_no_descriptor(bus: PrivateBus) -> None:
    server = CallServer(ObjectTree(ROOT))
    before = held_files()
    gc.disable()
    try:
        for _ in range(20):
            connection = HardenedMessageBus(bus.address, server, ignore)
            await connection.open()
            await connection.close()
        ours = open_files() - before
        for _ in range(20):
            stock = await MessageBus(bus.address, BusType.SYSTEM).connect()
            stock.disconnect()
            await stock.wait_for_disconnect()
            del stock
        leaked = open_files() - before
    finally:
        gc.enable()
    assert ours == 0
    assert leaked > 5


async def test_a_bus_that_is_not_there_leaves_no_descriptor(tmp_path: Path) -> None:
    server = CallServer(ObjectTree(ROOT))
    before = held_files()
    for _ in range(5):
        with pytest.raises(OSError, match="No such file"):
            HardenedMessageBus(f"unix:path={tmp_path}/none", server, ignore)
    assert held_files() == before


# 11: descriptors sent to us


async def descriptors_left(bus: PrivateBus, module: str, *arguments: str) -> int:
    sender = await MessageBus(bus.address, BusType.SYSTEM, negotiate_unix_fd=True).connect()
    async with service(module, bus, *arguments) as process, client(bus) as other:
        await probe(other, "TakeLag")
        before = open_files(process.pid)
        for _ in range(20):
            await sender.call(
                Message(
                    destination=NAME,
                    path=ROOT,
                    interface=INTERFACE,
                    member="Nonsense",
                    signature="h",
                    body=[0],
                    unix_fds=[1],
                )
            )
        left = open_files(process.pid) - before
    sender.disconnect()
    return left


async def test_descriptors_sent_to_us_do_not_pile_up() -> None:
    async with private_bus([ALLOW_EVERYTHING]) as open_bus:
        assert await descriptors_left(open_bus, OURS) == 0
        assert await descriptors_left(open_bus, STOCK, "descriptors") >= 20


ALLOW_EVERYTHING = (
    '<busconfig><policy context="default"><allow own="*"/><allow send_destination="*"/>'
    "</policy></busconfig>"
)


# 22: a daemon that stops reading


async def test_a_daemon_that_stops_reading_costs_bounded_memory(tmp_path: Path) -> None:
    reading = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"OK 1234\r\n")
        await reader.readline()
        await reader.readexactly(16)
        hello = Message.new_method_return(
            Message(path="/", member="Hello", serial=1), "s", [":1.1"]
        )
        hello.serial = 1
        writer.write(bytes(hello._marshall()))
        await reading.wait()
        writer.close()

    listening = await asyncio.start_unix_server(deaf, tmp_path / "deaf", limit=1024)
    server = CallServer(ObjectTree(ROOT))
    connection = HardenedMessageBus(f"unix:path={tmp_path}/deaf", server, ignore)
    await connection.open()
    for number in range(20_000):
        connection.send(Message.new_signal(ROOT, INTERFACE, "Tick", "s", ["x" * 500]))
        if connection.closed.done():
            break
        if number % 100 == 0:
            await asyncio.sleep(0)
    assert connection.closed.result() == "the bus daemon stopped reading"
    with pytest.raises(Disconnected):
        await connection.call_method(Message(destination=NAME, path=ROOT, member="Echo"))
    reading.set()
    listening.close()
