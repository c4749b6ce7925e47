# SPDX-License-Identifier: Apache-2.0
"""A client in its own process that does to a service what a broken or hostile client could.

Run as ``python -m tests.integration.bus_abuse ADDRESS flood|guard|signatures|big COUNT``.
"""

import itertools
import socket
import struct
import sys
from pathlib import Path

from gpuwarden.bus.library import Message, MessageFlag, Variant
from tests.integration.probe import INTERFACE, NAME, ROOT

PROPERTIES = "org.freedesktop.DBus.Properties"


class RawClient:
    """The bus protocol by hand: as fast as Python can send."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address.removeprefix("unix:path="))
        uid = str(Path("/proc/self").stat().st_uid).encode().hex().encode()
        self.socket.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
        assert self.socket.recv(4096).startswith(b"OK")
        self.socket.sendall(b"BEGIN\r\n")
        daemon = "org.freedesktop.DBus"
        hello = Message(
            destination=daemon, path="/org/freedesktop/DBus", interface=daemon, member="Hello"
        )
        self.send(hello)
        self.socket.recv(4096)

    def send(self, message: Message) -> None:
        message.serial = 1
        self.socket.sendall(bytes(message._marshall()))

    def send_many(self, message: Message, count: int) -> None:
        message.serial = 1
        data = bytearray(message._marshall())
        for serial in range(2, count + 2):
            struct.pack_into("<I", data, 8, serial)
            self.socket.sendall(data)

    def settle(self) -> None:
        """Wait until the bus has taken everything: it answers in order."""
        daemon = "org.freedesktop.DBus"
        last = Message(
            destination=daemon,
            path="/org/freedesktop/DBus",
            interface=daemon,
            member="GetId",
        )
        self.send(last)
        self.socket.recv(4096)


def call(member: str, signature: str = "", body: list[object] | None = None) -> Message:
    return Message(
        destination=NAME,
        path=ROOT,
        interface=INTERFACE,
        member=member,
        signature=signature,
        body=body or [],
        flags=MessageFlag.NO_REPLY_EXPECTED,
    )


def flood(client: RawClient, count: int) -> None:
    client.send_many(call("Echo", "s", ["x" * 64]), count)


def guard(client: RawClient, count: int) -> None:
    """What costs the guard most: everything it has, and changes that it must ask about."""
    everything = call("GetManagedObjects")
    everything.interface = "org.freedesktop.DBus.ObjectManager"
    change = call("Override", "su", ["alert", 60])
    change.path, change.interface = f"{ROOT}/gpu/0", f"{NAME}.Thermal"
    for message in (everything, change):
        client.send_many(message, count // 2)


def signatures(client: RawClient, count: int) -> None:
    """As many different signatures as possible, in a variant, where any is allowed."""
    for letters in itertools.islice(itertools.product("nqiuxtd", repeat=5), count):
        inner = f"({''.join(letters) * 40})"
        values = [0] * (len(inner) - 2)
        client.send(
            Message(
                destination=NAME,
                path=ROOT,
                interface=PROPERTIES,
                member="Set",
                signature="ssv",
                body=[INTERFACE, "State", Variant(inner, values)],
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )


def big(client: RawClient, megabytes: int) -> None:
    """One message of many small numbers: cheap to send, dear to parse."""
    message = call("Echo", "ay", [b""])
    message.serial = 1
    head = bytearray(message._marshall())
    signature = head.index(b"\x02ay\0")
    head[signature : signature + 4] = b"\x02ai\0"
    length = megabytes * 2**20
    struct.pack_into("<I", head, 4, 4 + length)
    struct.pack_into("<I", head, len(head) - 4, length)
    client.socket.sendall(bytes(head) + bytes(length))


if __name__ == "__main__":
    abuse = {"flood": flood, "guard": guard, "signatures": signatures, "big": big}[sys.argv[2]]
    hostile = RawClient(sys.argv[1])
    abuse(hostile, int(sys.argv[3]))
    hostile.settle()
