# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor (QMP): the few commands that the node needs."""

import json
import socket
from typing import Any

from tests.node.channel import NodeError, NodeLostError

ANSWER_SECONDS = 60.0


class Monitor:
    """One monitor connection; answers in order, events are passed over."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._connection.settimeout(ANSWER_SECONDS)
        self._received = b""

    def greet(self) -> None:
        """Waits for QEMU; raises ``NodeLostError`` when it ends instead of starting."""
        self._next()
        self.command("qmp_capabilities")

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def command(self, name: str, **arguments: Any) -> Any:
        """Runs a monitor command; raises ``NodeError`` with QEMU's words when it refuses."""
        self._connection.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        return self._answer(f"{name} {arguments}")

    def give_descriptor(self, name: str, descriptor: int) -> None:
        """Hands QEMU an open descriptor, from then on known to it as ``name``."""
        message = {"execute": "getfd", "arguments": {"fdname": name}}
        socket.send_fds(self._connection, [json.dumps(message).encode()], [descriptor])
        self._answer(f"getfd {name}")

    def _answer(self, command: str) -> Any:
        while True:
            message = self._next()
            if "error" in message:
                raise NodeError(f"QEMU refused {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def _next(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError as error:
                raise NodeLostError("QEMU's monitor does not answer") from error
            except OSError as error:
                raise NodeLostError(f"QEMU has ended ({error})") from error
            if not data:
                raise NodeLostError("QEMU has ended")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
