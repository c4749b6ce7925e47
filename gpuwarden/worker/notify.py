# SPDX-License-Identifier: Apache-2.0
"""What the worker tells systemd, by sd_notify's protocol (see sd_notify(3))."""

import logging
import os
import socket
from typing import Mapping, Optional

_log = logging.getLogger(__name__)
SEND_TIMEOUT_SECONDS = 5.0  # PID 1 may be busy with a daemon-reload for a while
AT_ONCE = ("STATUS", "WATCHDOG")  # told again soon: requests don't wait for a PID 1 that is busy


class Notifier:
    """Datagrams to the notify socket; does nothing where there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._status = ""
        self._socket: Optional[socket.socket] = None
        self._socket_at_once: Optional[socket.socket] = None
        if path:
            self._socket = _datagrams(SEND_TIMEOUT_SECONDS)
            self._socket_at_once = _datagrams(0.0)

    def ready(self) -> None:
        """The model can answer. Alone in its datagram. Raises OSError if it can't be told."""
        if self._socket:
            self._socket.sendto(b"READY=1", self._address)

    def stopping(self) -> None:
        """The worker is on its way out."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The worker is well."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """The start or stop needs that much longer, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``, ASCII whatever it is made of."""
        line = " ".join(text.split()).encode("ascii", "replace").decode()
        if line != self._status:
            self._status = line if self._send(f"STATUS={line}") else ""

    def _send(self, text: str) -> bool:
        """Whether it is told, or nobody wants to be."""
        kind = text.partition("=")[0]
        sending = self._socket_at_once if kind in AT_ONCE else self._socket
        if sending is None:
            return True
        try:
            sending.sendto(text.encode("ascii"), self._address)
        except OSError as error:  # the next one may pass; the watchdog judges if none does
            _log.warning("systemd could not be told %s: %s", kind, error.strerror or "it is busy")
            return False
        return True


def _datagrams(timeout_seconds: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    made.settimeout(timeout_seconds)
    return made


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> Optional[float]:
    """The watchdog's period that systemd asks of this process, or None."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    owner = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or (owner and owner != str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000 or None
